"""The operator against KubeRay's RayJob: the same cluster, image, head and driver work; from apply to Complete.

    PYTHONPATH=. python benchmarks/rayjob.py

Needs a cluster where the operator runs (KUBECONFIG, or the local one of ./kind-setup.sh), and a few minutes. Each
way draws 16 samples in 5 steps with the shipped network, on a head of one CPU alone, onto a claim of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kubernetes.client import AppsV1Api
from rich.console import Console
from rich.table import Table
from timing import machine

from tests.cluster.conftest import nodes_kubeconfig
from tests.cluster.kube import Cluster, Manifest, Namespace, has_condition
from tests.cluster.manifests import claim, ray_cluster_spec
from tests.cluster.samplings import API, KIND, SMALL

DRAW = (
    "ddpm-sample --model_path builtin://mnist --n_samples 16 --sampler dpmpp --steps 5 --output_uri /out "
    "--ray_address auto"
)
ENDS = ("Complete", "Failed", "ValidationFailed")
ENDS_WITHIN = 300.0
GONE_WITHIN = 120.0


@dataclass(frozen=True)
class Measured:
    """One run: seconds from apply to its end, and from there until no pod was left."""

    complete: float
    gone: float


def sampling(namespace: Namespace) -> Measured:
    """The operator's way."""
    document = {"apiVersion": API, "kind": KIND, "metadata": {"name": "digits"}, "spec": SMALL}
    return measured(
        namespace, document, lambda seen: has_condition("Complete")(seen) or has_condition("Failed")(seen)
    )


def ray_job(namespace: Namespace, image: str, mode: str) -> Measured:
    """KubeRay's way, in one of its modes, with KubeRay's own probes."""
    namespace.apply(claim("out"))
    spec = ray_cluster_spec(image, claim="out")
    head = spec["headGroupSpec"]
    head["rayStartParams"] = {"num-cpus": "1"}
    (container,) = head["template"]["spec"]["containers"]
    size = {"cpu": "1", "memory": "2Gi"}
    container["resources"] = {"requests": size, "limits": size}
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
    return measured(namespace, document, lambda seen: seen.get("status", {}).get("jobDeploymentStatus") in ENDS)


def submitter(of_head: Manifest, image: str) -> Manifest:
    """The pod that submits, as the restricted Pod Security level wants it; KubeRay fills in its command."""
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


def measured(namespace: Namespace, document: Manifest, ended: Callable[[Manifest], bool]) -> Measured:
    began = time.monotonic()
    namespace.apply(document)
    kind, name = document["kind"], document["metadata"]["name"]
    seen = namespace.wait(document["apiVersion"], kind, name, ended, ENDS_WITHIN, f"the {kind} to end")
    complete = time.monotonic()
    status = seen["status"]
    assert status.get("phase", status.get("jobStatus")) in ("Succeeded", "SUCCEEDED"), status
    # A submitter's pod ends and stays; it holds nothing.
    namespace.wait_for_none("v1", "Pod", GONE_WITHIN, "ray.io/node-type=head")
    return Measured(complete - began, time.monotonic() - complete)


def worker_image(cluster: Cluster) -> str:
    """The one that the operator gives to samplings."""
    operator = AppsV1Api(cluster.dynamic.client).read_namespaced_deployment("ddpm-ray-operator", "ddpm-ray")
    environment = operator.spec.template.spec.containers[0].env
    return str(next(each.value for each in environment if each.name == "WORKER_IMAGE"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each way (default 5)")
    repeats = parser.parse_args().repeats
    given = os.environ.get("KUBECONFIG")
    cluster = Cluster.connect(Path(given) if given else nodes_kubeconfig())
    image = worker_image(cluster)
    ways: dict[str, Callable[[Namespace], Measured]] = {
        "RayJob, K8sJobMode (its default)": lambda namespace: ray_job(namespace, image, "K8sJobMode"),
        "RayJob, HTTPMode": lambda namespace: ray_job(namespace, image, "HTTPMode"),
        "DDPMSampling": sampling,
    }
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for number in range(repeats):
        for index, (name, way) in enumerate(ways.items()):
            with cluster.namespace(f"ddpm-bench-{number}-{index}") as namespace:
                runs[name].append(way(namespace))
    medians = {name: statistics.median(run.complete for run in done) for name, done in runs.items()}
    table = Table(title=f"16 samples, 5 steps, {repeats} runs in turn; {machine()}", title_justify="left")
    for column in ("", "apply to Complete, s", "the operator's share of it", "then until the head is gone, s"):
        table.add_column(column, justify="right" if column else "left")
    for name, done in runs.items():
        share = medians["DDPMSampling"] / medians[name]
        gone = statistics.median(run.gone for run in done)
        table.add_row(name, f"{medians[name]:.1f}", f"{share:.2f}", f"{gone:.1f}")
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
