"""Compares the operator with KubeRay's RayJob, from apply to Complete: same cluster, image, head and driver work.

    PYTHONPATH=. python benchmarks/rayjob.py [--check]

Needs a cluster where the operator runs (KUBECONFIG, or the local one of ./kind-setup.sh), and a few minutes. Each
way draws 16 samples in 5 steps with the shipped network, on a single head of one CPU, to its own claim. The last way
has two workers and more samples; it measures how soon several pods are deleted.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from kubernetes.client import AppsV1Api
from rich.console import Console
from rich.table import Table
from timing import machine

from tests.cluster.kube import Cluster, Manifest, Namespace, has_condition
from tests.cluster.local_node import node_kubeconfig
from tests.cluster.manifests import claim, ray_cluster_spec
from tests.cluster.samplings import API, KIND, SMALL

DRAW = (
    "ddpm-sample --model_path builtin://mnist --n_samples 16 --sampler dpmpp --steps 5 --output_uri /out "
    "--ray_address auto"
)
_HEAD_ONLY = {"cpu": "1", "memory": "2Gi"}
DIGITS = SMALL | {"resources": {"head": _HEAD_ONLY, "worker": _HEAD_ONLY, "maxWorkers": 0}}
ENDS = ("Complete", "Failed", "ValidationFailed")
END_TIMEOUT = 300.0
DELETION_TIMEOUT = 120.0
HEAD = "ray.io/node-type=head"
# Selects all Ray pods. The pod that submits a RayJob completes and stays, without resources.
RAY_PODS = "ray.io/node-type"
OPERATORS, DEFAULT, HTTP = "DDPMSampling", "RayJob, K8sJobMode (its default)", "RayJob, HTTPMode"
WITH_WORKERS = "DDPMSampling, 2 workers, 96 samples, 100 steps"
# Limits: the operator's time relative to a RayJob, and the seconds until no pod is left.
MAX_SHARES = {DEFAULT: 0.45, HTTP: 0.6}
MAX_DELETION_SECONDS = 5.0
_POD = {"cpu": "400m", "memory": "2Gi"}
TWO_WORKERS = SMALL | {
    "samples": 96,
    "sampler": {"name": "ddpm", "steps": 100},
    "resources": {"head": _POD, "worker": _POD, "maxWorkers": 2},
}
# The phases of a run, in order, as titled in the table.
PHASES = ("head pod made", "volume, node", "head ready", "job, result")


@dataclass(frozen=True)
class Measured:
    """One run, in seconds.

    Attributes:
        phases: of `PHASES`, the first from apply; their sum is the time to completion.
        gone: from completion until no Ray pod was left.
    """

    phases: Sequence[float]
    gone: float

    @property
    def complete(self) -> float:
        return sum(self.phases)


@dataclass
class HeadPod:
    """The times at which a watch first saw a head pod created, scheduled and ready."""

    namespace: Namespace
    made: float = math.nan
    scheduled: float = math.nan
    ready: float = math.nan

    def follow(self, version: str) -> None:
        """Watches from a resourceVersion until the pod is ready."""
        pods = self.namespace.cluster.resource("v1", "Pod")
        watch = {"namespace": self.namespace.name, "label_selector": HEAD, "resource_version": version}
        for event in pods.watch(**watch, timeout=int(END_TIMEOUT)):
            now, seen = time.monotonic(), event["raw_object"]
            self.made = now if math.isnan(self.made) else self.made
            if math.isnan(self.scheduled) and has_condition("PodScheduled")(seen):
                self.scheduled = now
            if has_condition("Ready")(seen):
                self.ready = now
                return


def sampling(namespace: Namespace, spec: Manifest) -> Measured:
    """Runs a DDPMSampling."""
    document = {"apiVersion": API, "kind": KIND, "metadata": {"name": "digits"}, "spec": spec}
    return measure(namespace, document, lambda seen: has_condition("Complete")(seen) or has_condition("Failed")(seen))


def ray_job(namespace: Namespace, image: str, mode: str) -> Measured:
    """Runs a RayJob in one of its submission modes, with KubeRay's own probes."""
    namespace.apply(claim("out"))
    spec = ray_cluster_spec(image, claim="out")
    head = spec["headGroupSpec"]
    head["rayStartParams"] = {"num-cpus": "1"}
    (container,) = head["template"]["spec"]["containers"]
    # The operator's limits: the head may use a second CPU.
    requests = {"cpu": "1", "memory": "2Gi"}
    container["resources"] = {"requests": requests, "limits": requests | {"cpu": "2"}}
    container["env"] = [{"name": "HOME", "value": "/tmp"}]
    spec["workerGroupSpecs"] = []
    job = {
        "entrypoint": DRAW,
        "submissionMode": mode,
        "shutdownAfterJobFinishes": True,
        "rayClusterSpec": spec,
    }
    if mode == "K8sJobMode":
        job["submitterPodTemplate"] = {"spec": submitter(head["template"]["spec"], image)}
    document = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "digits"}, "spec": job}
    return measure(namespace, document, lambda seen: seen.get("status", {}).get("jobDeploymentStatus") in ENDS)


def submitter(of_head: Manifest, image: str) -> Manifest:
    """Returns the submitter pod for the restricted Pod Security level; KubeRay fills in its command."""
    container = {
        "name": "ray-job-submitter",
        "image": image,
        "env": [{"name": "HOME", "value": "/tmp"}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
        "securityContext": of_head["containers"][0]["securityContext"],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": of_head["securityContext"],
        "containers": [container],
    }


def measure(namespace: Namespace, document: Manifest, ended: Callable[[Manifest], bool]) -> Measured:
    head = HeadPod(namespace)
    before = namespace.cluster.resource("v1", "Pod").get(namespace=namespace.name).metadata.resourceVersion
    with ThreadPoolExecutor(1) as executor:
        followed = executor.submit(head.follow, before)
        began = time.monotonic()
        namespace.apply(document)
        kind, name = document["kind"], document["metadata"]["name"]
        seen = namespace.wait(document["apiVersion"], kind, name, ended, END_TIMEOUT, f"the {kind} to end")
        complete = time.monotonic()
        followed.result()
    status = seen["status"]
    assert status.get("phase", status.get("jobStatus")) in ("Succeeded", "SUCCEEDED"), status
    namespace.wait_for_none("v1", "Pod", DELETION_TIMEOUT, RAY_PODS)
    times = (began, head.made, head.scheduled, head.ready, complete)
    return Measured([after - before for before, after in pairwise(times)], time.monotonic() - complete)


def connect_cluster() -> Cluster:
    """Connects to the cluster of KUBECONFIG, or to the local one."""
    given = os.environ.get("KUBECONFIG")
    return Cluster.connect(Path(given) if given else node_kubeconfig())


def worker_image(cluster: Cluster) -> str:
    """Returns the operator's default image of samplings."""
    operator = AppsV1Api(cluster.dynamic.client).read_namespaced_deployment("ddpm-ray-operator", "ddpm-ray")
    environment = operator.spec.template.spec.containers[0].env
    return str(next(each.value for each in environment if each.name == "WORKER_IMAGE"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way (default 5)")
    parser.add_argument("--check", action="store_true", help="exit with code 1 if a limit is exceeded")
    options = parser.parse_args()
    repeats = options.repeats
    cluster = connect_cluster()
    image = worker_image(cluster)
    ways: dict[str, Callable[[Namespace], Measured]] = {
        DEFAULT: lambda namespace: ray_job(namespace, image, "K8sJobMode"),
        HTTP: lambda namespace: ray_job(namespace, image, "HTTPMode"),
        OPERATORS: lambda namespace: sampling(namespace, DIGITS),
        WITH_WORKERS: lambda namespace: sampling(namespace, TWO_WORKERS),
    }
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(repeats):
        for index, (name, way) in enumerate(ways.items()):
            with cluster.namespace(f"ddpm-bench-{number}-{index}") as namespace:
                runs[name].append(way(namespace))
            cluster.wait_for_namespaces_to_go()
    medians = {name: statistics.median(run.complete for run in done) for name, done in runs.items()}
    table = Table(title=f"16 samples, 5 steps, {repeats} runs in turn; {machine()}", title_justify="left")
    for column in ("seconds, medians", "apply to Complete", "the operator's share", *PHASES, "pods gone after"):
        table.add_column(column, justify="right" if table.columns else "left")
    for name, done in runs.items():
        phases = [statistics.median(phase) for phase in zip(*(run.phases for run in done), strict=True)]
        share = f"{medians[OPERATORS] / medians[name]:.2f}" if name in MAX_SHARES else ""
        times = [f"{seconds:.1f}" for seconds in (*phases, median_deletion(done))]
        table.add_row(name, f"{medians[name]:.1f}", share, *times)
    Console(width=120).print(table)
    exceeded = list(exceeded_limits(medians, {name: median_deletion(runs[name]) for name in (OPERATORS, WITH_WORKERS)}))
    for limit in exceeded:
        print(f"too slow: {limit}", file=sys.stderr)
    return 1 if options.check and exceeded else 0


def exceeded_limits(medians: Mapping[str, float], gone: Mapping[str, float]) -> Iterator[str]:
    """Yields a description of every exceeded limit.

    Args:
        medians: seconds from apply to Complete.
        gone: seconds from completion until no pod was left.
    """
    for name, max_share in MAX_SHARES.items():
        share = medians[OPERATORS] / medians[name]
        if share > max_share:
            yield f"{share:.2f} of {name}, at most {max_share} is allowed"
    for name, seconds in gone.items():
        if seconds > MAX_DELETION_SECONDS:
            yield f"{seconds:.1f} s until no pod of {name} was left, at most {MAX_DELETION_SECONDS:g} s is allowed"


def median_deletion(runs: Sequence[Measured]) -> float:
    """Returns the median of the seconds until no pod was left."""
    return statistics.median(run.gone for run in runs)


if __name__ == "__main__":
    sys.exit(main())
