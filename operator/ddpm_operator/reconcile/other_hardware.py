"""What happens when an attempt finds no node, or another node, than one with the hardware of the stored samples.

- The driver names pods whose hardware differs: their nodes are excluded, and the attempt ends without counting against
  spec.backoffLimit (`driver_found`). Such an attempt adds to the list of excluded nodes, which is bounded, so there are
  at most `MAX_NODES` of them. An attempt that adds nothing has failed.
- No node that `status.placement` allows has room for a pod that draws (`keeps_out`): the attempt ends, the sampling is
  Queued, and the next attempt begins after a pause (`waiting`). It never fails because of this.

How nodes become known: `ddpm_operator.reconcile.placement`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ddpm_operator.api import WAITING_FOR_HARDWARE, ConditionType, EventReason, Phase, Spec, Status
from ddpm_operator.api.status import Placement
from ddpm_operator.reconcile.attempts import end, end_queued
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.placement import drawing_pods, excluding, nodes_of
from ddpm_operator.reconcile.progress_document import FailedOutcome
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.text import clip, redact

HINT = (
    "set spec.resources.allowMixedHardware to true to draw the rest on other hardware, or make room on nodes with the "
    "same; then run `kubectl ddpm retry`"
)
FIRST_PAUSE = timedelta(minutes=1)
MAX_PAUSE = timedelta(minutes=10)
# The scheduler's words for a node that does not match, such as "1 node(s) didn't match Pod's node affinity/selector".
_NODE_AFFINITY = re.compile(r"(?i)(?<!volume )node ?affinity")
_MAX_SHOWN = 400


def driver_found(observed: Observed, draft: StatusBuilder, error: FailedOutcome) -> StatusBuilder | None:
    """Ends an attempt that ran on other hardware, and excludes the nodes; None if it was not for that.

    None, too, if the attempt has not added to the excluded nodes: their pods are unknown, they were excluded before, or
    the list is full. Then it has failed.
    """
    status = draft.status
    if status.plan is None or status.cluster is None:
        return None
    nodes = nodes_of(observed, status.plan, error.other_hardware_ips)
    placement = excluding(status.placement or Placement(), nodes)
    if not nodes or len(placement.excluded_nodes) <= (status.cluster.excluded_nodes or 0):
        return None
    message = (
        f"Attempt {status.attempt} ran on other hardware than that of the stored samples, and does not count. Later "
        f"attempts avoid {_clipped(', '.join(nodes))}."
    )
    draft = draft.set(placement=placement)
    return end(draft, observed.sampling.spec, EventReason.OTHER_HARDWARE, message).set(phase=Phase.PENDING)


def keeps_out(observed: Observed, status: Status) -> bool:
    """Returns whether the placement keeps all drawing pods of the active attempt from being scheduled."""
    if status.plan is None or status.cluster is None or not status.cluster.constrained:
        return False
    pods = [pod for pod in drawing_pods(observed, status.plan) if not pod.deleted and not pod.finished]
    scheduled = any(pod.scheduled for pod in pods)
    return not scheduled and any(_NODE_AFFINITY.search(pod.unschedulable or "") for pod in pods)


def wait(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """Ends an attempt that no node can run because of the placement. It does not count."""
    placement = draft.status.placement or Placement()
    update = {
        "unscheduled_attempts": (placement.unscheduled_attempts or 0) + 1,
        "last_unscheduled_time": draft.now,
    }
    draft = draft.set(placement=placement.model_copy(update=update))
    return end_queued(draft, spec, WAITING_FOR_HARDWARE, _message(draft.status))


def waiting(draft: StatusBuilder, spec: Spec) -> tuple[StatusBuilder, datetime] | None:
    """Returns the status of a sampling that waits between two attempts, and until when; None if it does not wait."""
    until = _next_try(draft.status.placement)
    if spec.resources.allow_mixed_hardware or until is None or draft.now >= until:
        return None
    message = _message(draft.status)
    draft = draft.set_condition(ConditionType.CLUSTER_READY, False, WAITING_FOR_HARDWARE, message)
    return draft.set(phase=Phase.QUEUED), until


def _next_try(placement: Placement | None) -> datetime | None:
    """Returns when to try again, after 1, 2, 4 and so on, at most 10 minutes; None if the last attempt had a node."""
    if placement is None or placement.last_unscheduled_time is None:
        return None
    doublings = min((placement.unscheduled_attempts or 1) - 1, 10)
    return placement.last_unscheduled_time + min(FIRST_PAUSE * (1 << max(0, doublings)), MAX_PAUSE)


def _message(status: Status) -> str:
    placement, until = status.placement or Placement(), _next_try(status.placement)
    hardware = status.plan.hardware if status.plan else None
    known = f" ({_clipped(', '.join(f'{name} {value}' for name, value in hardware.items()))})" if hardware else ""
    labels = [f"{label}={'|'.join(values)}" for label, values in sorted(placement.node_labels.items())]
    needed = f" It looks for nodes with {_clipped(', '.join(labels))}." if labels else ""
    excluded = ", ".join(placement.excluded_nodes)
    avoided = f" Nodes with other hardware: {_clipped(excluded)}." if excluded else ""
    again = f" The next attempt begins at {until:%H:%M:%S} UTC." if until else ""
    return (
        f"No node with the hardware of the stored samples{known} can take the pods that draw.{needed}"
        f"{avoided}{again} With spec.resources.allowMixedHardware: true, the rest is drawn on other "
        "hardware."
    )


def _clipped(text: str) -> str:
    return clip(redact(text), _MAX_SHOWN)
