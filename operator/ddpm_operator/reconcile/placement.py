"""Learns which nodes have the hardware that the stored samples were drawn on, and records it in status.placement.

The driver reports the hardware, the addresses of the pods that draw, and those of the pods whose hardware is another.
The operator maps the addresses to nodes, and reads the labels of the nodes that draw. Only pods that draw count:
workers, or the head of a plan without workers. `ddpm_operator.manifests.node_affinity` applies the placement to these
pods of later attempts. What happens if there is no such node, or if an attempt ran elsewhere: `other_hardware`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ddpm_operator.api import Plan, Spec, Status
from ddpm_operator.api.status import MAX_NODES, Placement
from ddpm_operator.reconcile.observed import HeadResponse, Observed, ObservedPod
from ddpm_operator.reconcile.progress_document import NodeIps, ProgressDocument
from ddpm_operator.reconcile.status_builder import StatusBuilder

# They name the hardware itself: labels of the GPU operator of NVIDIA, and of Node Feature Discovery.
_PART_LABELS = (
    "nvidia.com/gpu.product",
    "feature.node.kubernetes.io/cpu-model.vendor_id",
    "feature.node.kubernetes.io/cpu-model.family",
    "feature.node.kubernetes.io/cpu-model.id",
)
# A cloud's machine type stands for its hardware, and is narrower: it has a size, too.
_MACHINE_TYPE_LABEL = "node.kubernetes.io/instance-type"
HARDWARE_LABELS = ("kubernetes.io/arch", _MACHINE_TYPE_LABEL, *_PART_LABELS)


def record_placement(observed: Observed, document: ProgressDocument, draft: StatusBuilder) -> StatusBuilder:
    """Records the nodes on which the driver reports that it draws, and those with other hardware."""
    status, previous = draft.status, observed.sampling.status
    if not _learns(observed) or status.plan is None or status.plan.hardware is None:
        return draft
    was = previous.plan.hardware if previous and previous.plan else None
    if was not in (None, status.plan.hardware):
        # The output was emptied, and the samples are drawn on other hardware now.
        draft = draft.set(placement=None)
    known = draft.status.placement or Placement()
    placement = _learn(observed, known, status.plan, document.node_ips)
    return draft if placement == known else draft.set(placement=placement)


def excluding(placement: Placement, nodes: Iterable[str]) -> Placement:
    """Returns the placement with further nodes excluded; of all excluded nodes, the last `MAX_NODES`."""
    excluded = tuple(dict.fromkeys((*placement.excluded_nodes, *nodes)))[-MAX_NODES:]
    left = tuple(node for node in placement.nodes if node not in excluded)
    return placement.model_copy(update={"excluded_nodes": excluded, "nodes": left})


def constrains(spec: Spec, status: Status) -> bool:
    """Returns whether an attempt that begins now is limited to some nodes."""
    placement = status.placement
    if spec.resources.allow_mixed_hardware or placement is None:
        return False
    return bool(placement.node_labels or placement.excluded_nodes)


def drawing_pods(observed: Observed, plan: Plan) -> list[ObservedPod]:
    """Returns the pods of the active attempt that draw samples, or will."""
    role = "worker" if plan.workers else "head"
    return [pod for pod in observed.cluster_pods if pod.role == role]


def nodes_of(observed: Observed, plan: Plan, ips: Iterable[str]) -> list[str]:
    """Returns the nodes of the drawing pods with these addresses, each once."""
    by_ip = {pod.ip: pod.node for pod in drawing_pods(observed, plan) if pod.ip and pod.node}
    return list(dict.fromkeys(by_ip[ip] for ip in ips if ip in by_ip))


def nodes_to_read(observed: Observed) -> tuple[str, ...]:
    """Returns the nodes whose labels this pass uses; none unless a driver reports where it draws."""
    status, poll = observed.sampling.status, observed.head_poll
    document = poll.progress if isinstance(poll, HeadResponse) else None
    if not (_learns(observed) and document and document.node_ips.ready and status and status.plan):
        return ()
    known = status.placement.nodes if status.placement else ()
    return _first([*known, *nodes_of(observed, status.plan, document.node_ips.ready)])


def _learns(observed: Observed) -> bool:
    return not observed.sampling.spec.resources.allow_mixed_hardware


def _learn(observed: Observed, known: Placement, plan: Plan, ips: NodeIps) -> Placement:
    ready = nodes_of(observed, plan, ips.ready)
    other = [node for node in nodes_of(observed, plan, ips.other_hardware) if node not in ready]
    placement = excluding(known, other)
    # A node that was excluded stays excluded: otherwise attempts could alternate between the two for ever.
    drawn = [node for node in ready if node not in placement.excluded_nodes]
    nodes = _first([*placement.nodes, *drawn])
    forgotten = {*known.nodes} - {*placement.nodes}
    # Values that only excluded nodes have must go.
    labels = _labels(observed.node_labels, nodes, {} if forgotten else known.node_labels)
    update: dict[str, object] = {"nodes": nodes, "node_labels": labels}
    if drawn:
        update |= {"unscheduled_attempts": None, "last_unscheduled_time": None}
    return placement.model_copy(update=update)


def _first(nodes: Iterable[str]) -> tuple[str, ...]:
    """Returns the first `MAX_NODES` of the nodes, each once."""
    return tuple(dict.fromkeys(nodes))[:MAX_NODES]


def _labels(
    node_labels: Mapping[str, Mapping[str, str]], nodes: Collection[str], previous: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Returns the hardware labels that every one of the nodes has, each with the values that it has on them.

    Args:
        node_labels: of the nodes that could be read.
        previous: what was recorded earlier. It is kept for nodes that cannot be read any more.
    """
    read = [node_labels[node] for node in nodes if node in node_labels]
    keys = HARDWARE_LABELS if len(read) == len(nodes) else previous
    found = {
        key: tuple(sorted({*previous.get(key, ()), *(labels[key] for labels in read)}))
        for key in keys
        if all(key in labels for labels in read)
    }
    if any(key in found for key in _PART_LABELS):
        found.pop(_MACHINE_TYPE_LABEL, None)
    return {key: values for key, values in found.items() if 0 < len(values) <= MAX_NODES}
