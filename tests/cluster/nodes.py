"""Nodes with more than they have, and nodes that are not there: enough for the scheduler, which is not to know."""

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
    """One node that takes pods has so many GPUs, for the time of the block."""
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
    """Nodes that exist in the API alone. Pods that tolerate `TAINT` are given to them, and never start.

    Args:
        name: the label ``TAINT`` has this value on them.
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
            ready = V1NodeCondition(type="Ready", status="True", reason="Told", message="There is nobody to ask.")
            status = V1NodeStatus(capacity=resources, allocatable=resources, conditions=[ready])
            cluster.core.patch_node_status(each, V1Node(status=status))
        yield names
    finally:
        cluster.core.delete_collection_node(label_selector=f"{TAINT}={name}")
