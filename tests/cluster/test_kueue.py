"""Kueue with quota for one sampling: the second is queued, admitted, preempted and admitted again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.kube import Cluster, Manifest, Namespace, has_condition, phase
from tests.cluster.local_node import NODE, node_kubeconfig
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left

KUEUE = "kueue.x-k8s.io/v1beta1"
SEEN_TIMEOUT = 60.0
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
# About ten seconds of work in two-second shards, in one pod with 600m and 2 GiB.
SHORT_RUN = SMALL | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}, "queueName": "gpus"}
QUOTA = ({"name": "cpu", "nominalQuota": "1"}, {"name": "memory", "nominalQuota": "3Gi"})
# What Kueue adds to admitted pods: a label of every Linux node, and a toleration that no other pod has.
FLAVOR_LABELS = {"kubernetes.io/os": "linux"}
TOLERATION = {"key": "ddpm-ray.test/flavor", "operator": "Exists", "effect": "NoSchedule"}
SHARDS = "import pathlib\nfor it in pathlib.Path('/out/shards').iterdir(): print(f'{it.name}:{it.stat().st_mtime_ns}')"

# Kueue's webhooks intercept every RayCluster, so no other test may create one during the installation.
pytestmark = [pytest.mark.usefixtures("operator"), pytest.mark.long, pytest.mark.alone]


@pytest.fixture(scope="module")
def kueue(cluster: Cluster) -> Iterator[None]:
    """Installs Kueue on the node of hack/node for this module; other clusters must have it."""
    if cluster.kubeconfig and cluster.kubeconfig == node_kubeconfig():
        try:
            subprocess.run([NODE / "kueue"], check=True)
            yield
        finally:
            subprocess.run([NODE / "kueue", "--delete"], check=True)
    else:
        crds = cluster.resource("apiextensions.k8s.io/v1", "CustomResourceDefinition").get().to_dict()["items"]
        assert any(it["metadata"]["name"] == "workloads.kueue.x-k8s.io" for it in crds), (
            "this cluster has no Kueue: install it, with ray.io/raycluster among integrations.frameworks"
        )
        yield


def cluster_queue(namespace: Namespace, stop: str) -> Manifest:
    flavors = [{"name": namespace.name, "resources": list(QUOTA)}]
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": flavors}],
        "stopPolicy": stop,
    }
    return {"apiVersion": KUEUE, "kind": "ClusterQueue", "metadata": {"name": namespace.name}, "spec": spec}


@contextmanager
def queue(namespace: Namespace) -> Iterator[None]:
    """Creates the LocalQueue `gpus`, with a ResourceFlavor and a ClusterQueue named after the namespace."""
    named = {"metadata": {"name": namespace.name}}
    flavor = {"nodeLabels": FLAVOR_LABELS, "tolerations": [TOLERATION]}
    local = {"metadata": {"name": "gpus"}, "spec": {"clusterQueue": namespace.name}}
    try:
        namespace.apply(
            {"apiVersion": KUEUE, "kind": "ResourceFlavor", **named, "spec": flavor},
            cluster_queue(namespace, "None"),
            {"apiVersion": KUEUE, "kind": "LocalQueue", **local},
        )
        yield
    finally:
        for kind in ("ClusterQueue", "ResourceFlavor"):
            namespace.cluster.resource(KUEUE, kind).delete(name=namespace.name)


def done(seen: Manifest) -> int:
    return int(seen.get("status", {}).get("progress", {}).get("done", 0))


def attempts(seen: Manifest) -> tuple[int, int]:
    """Returns the number of the last attempt and of the failed ones."""
    return seen["status"]["attempt"], seen["status"]["failedAttempts"]


def is_queued(seen: Manifest) -> bool:
    return phase(seen) == "Queued" and bool(seen["status"]["cluster"].get("dashboard"))


def no_deadline_runs(seen: Manifest) -> bool:
    """Whether neither the startup deadline nor the active deadline is counting."""
    return "startTime" not in seen["status"]["cluster"] and not has_condition("Running")(seen)


def cluster_ready(seen: Manifest) -> tuple[str, str]:
    found = next(it for it in seen["status"]["conditions"] if it["type"] == "ClusterReady")
    return found["reason"], found["message"]


def quota_message(namespace: Namespace, cluster: str) -> str:
    """Returns why Kueue does not admit a RayCluster, once its Workload says so."""

    def messages(workloads: list[Manifest]) -> list[str]:
        return [
            condition["message"]
            for workload in workloads
            if workload["metadata"]["ownerReferences"][0]["name"] == cluster
            for condition in workload.get("status", {}).get("conditions", ())
            if condition["type"] == "QuotaReserved" and condition["status"] == "False"
        ]

    found = namespace.wait_for_all(
        KUEUE, "Workload", lambda it: bool(messages(it)), SEEN_TIMEOUT, f"the Workload of {cluster} to wait"
    )
    return messages(found)[0]


def head_of(namespace: Namespace, cluster: str) -> Manifest:
    (head,) = namespace.list("v1", "Pod", f"ray.io/cluster={cluster},ray.io/node-type=head")
    return head


@pytest.mark.usefixtures("kueue")
def test_kueue_admits_in_turn_and_preemption_keeps_samples(
    namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    with queue(namespace):
        first = Sampling.apply(namespace, "first", SHORT_RUN)
        running = first.wait_for("Running")
        second = Sampling.apply(namespace, "second", SHORT_RUN)
        queued = second.wait(is_queued, "second to be queued")
        assert phase(namespace.get("ddpm-ray.io/v1alpha1", "DDPMSampling", "first")) == "Running"
        assert cluster_ready(queued) == ("Queued", "The RayCluster waits for the queue gpus.")
        assert no_deadline_runs(queued)
        cluster = queued["status"]["cluster"]["name"]
        assert "insufficient unused quota" in quota_message(namespace, cluster)
        assert not namespace.list("v1", "Pod", f"ray.io/cluster={cluster}")
        spec = head_of(namespace, running["status"]["cluster"]["name"])["spec"]
        assert FLAVOR_LABELS.items() <= spec["nodeSelector"].items()
        assert TOLERATION in spec["tolerations"]

        complete = first.wait_until_complete(128)
        assert attempts(complete) == (1, 0)
        admitted = second.wait(lambda it: done(it) > 0, "the first shard")
        assert admitted["status"]["cluster"]["startTime"] >= complete["status"]["completionTime"]

        namespace.apply(cluster_queue(namespace, "HoldAndDrain"))
        preempted = second.wait(is_queued, "second to be queued again")
        assert cluster_ready(preempted) == ("Queued", "The RayCluster waits for the queue gpus.")
        assert no_deadline_runs(preempted)
        assert 0 < done(preempted) < 128
        namespace.wait_for_none("v1", "Pod", SEEN_TIMEOUT, f"ray.io/cluster={cluster}")
        before = run_python(namespace, worker_image, SHARDS, claim="second-output")
        assert before

        namespace.apply(cluster_queue(namespace, "None"))
        ended = second.wait_until_complete(128)
        assert attempts(ended) == (1, 0)
        assert set(before) <= set(run_python(namespace, worker_image, SHARDS, claim="second-output"))
        expected = local_samples(128, tmp_path, *SAMPLER)
        for sampling, seen in (("first", complete), ("second", ended)):
            files, claim = ("/out/samples.npy", "/out/manifest.json"), f"{sampling}-output"
            samples, manifest = run_python(namespace, worker_image, DIGESTS, *files, claim=claim)
            assert samples == expected
            assert manifest == seen["status"]["output"]["manifestSha256"]
        assert_nothing_left(namespace)
        namespace.wait_for_none(KUEUE, "Workload", SEEN_TIMEOUT)
