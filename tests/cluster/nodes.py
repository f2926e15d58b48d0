"""Fake GPUs and fake nodes, which the scheduler accepts like real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kubernetes.client import V1Node, V1NodeCondition, V1NodeSpec, V1NodeStatus, V1ObjectMeta, V1Taint

from tests.cluster.kube import Cluster

TAINT = "ddpm-ray.io/no-kubelet"
HOSTNAME = "kubernetes.io/hostname"


@contextmanager
def fake_gpus(cluster: Cluster, resource: str, number: int) -> Iterator[None]:
    """Advertises GPUs on one schedulable node during the block."""
    nodes = [node for node in cluster.core.list_node().items if not node.spec.taints]
    node = nodes[0]
    before = (node.status.capacity or {}).get(resource)
    _set(cluster, node.metadata.name, {resource: str(number)})
    try:
        yield
    finally:
        _set(cluster, node.metadata.name, {resource: before})


def _set(cluster: Cluster, node: str, resources: dict[str, str | None]) -> None:
    status: dict[str, Any] = {"capacity": resources, "allocatable": resources}
    cluster.core.patch_node_status(node, {"status": status})


@contextmanager
def nodes_without_kubelets(cluster: Cluster, name: str, number: int) -> Iterator[list[str]]:
    """Creates nodes that exist only in the API. Pods that tolerate `TAINT` are scheduled there but never start.

    Args:
        name: the value of their label ``TAINT``.
    """
    names = [f"{name}-{count}" for count in range(number)]
    try:
        for each in names:
            labels = {TAINT: name, HOSTNAME: each}
            taint = V1Taint(key=TAINT, effect="NoSchedule")
            cluster.core.create_node(
                V1Node(metadata=V1ObjectMeta(name=each, labels=labels), spec=V1NodeSpec(taints=[taint]))
            )
            resources = {"cpu": "64", "memory": "256Gi", "pods": "110"}
            ready = V1NodeCondition(type="Ready", status="True", reason="Fake", message="This node has no kubelet.")
            status = V1NodeStatus(capacity=resources, allocatable=resources, conditions=[ready])
            cluster.core.patch_node_status(each, V1Node(status=status))
        yield names
    finally:
        cluster.core.delete_collection_node(label_selector=f"{TAINT}={name}")
