"""A RayCluster that Kueue, or another controller, suspends through its spec.suspend and later resumes.

The suspended attempt is Queued. Its pods are deleted, its clocks stand still, and when the cluster is resumed the same
attempt continues. The spec.suspend of the DDPMSampling is something else, see `ddpm_operator.reconcile.reconcile`.
"""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import Phase, Spec
from ddpm_operator.api.status import Cluster as ClusterStatus
from ddpm_operator.reconcile.attempts import pause
from ddpm_operator.reconcile.deadlines import STUCK_POD_TIMEOUT
from ddpm_operator.reconcile.head_failure import MAX_SILENCE, head_pods, previous_head
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable, Observed, ObservedCluster
from ddpm_operator.reconcile.status_builder import StatusBuilder

_REASON = "Queued"


def was_suspended(observed: Observed, cluster: ObservedCluster, recorded: ClusterStatus) -> bool:
    """Returns whether the attempt lost its head to a suspension that began and ended between two reconciles."""
    if recorded.head_uid is None or cluster.resumed_at is None:
        return False
    alive = any(pod.uid == recorded.head_uid and not pod.deleted and not pod.finished for pod in head_pods(observed))
    begun = recorded.scheduled_time or recorded.start_time
    return not alive and begun is not None and cluster.resumed_at > begun


def waits_for_previous_pods(
    observed: Observed, recorded: ClusterStatus, admitted: datetime | None, now: datetime
) -> bool:
    """Returns whether a resumed cluster still has its previous head, which is being deleted or is already gone.

    A head that answers was never deleted. One that is silent for MAX_SILENCE is dead.

    Args:
        admitted: when the attempt was admitted; None from its suspension until it is resumed.
    """
    previous, poll = previous_head(observed, recorded, admitted), observed.head_poll
    if previous is None or isinstance(poll, HeadResponse):
        return False
    if previous.deleted:
        return previous.deleted > now - STUCK_POD_TIMEOUT
    return not isinstance(poll, HeadUnreachable) or now < poll.since + MAX_SILENCE


def queued(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """Returns the status of an attempt whose RayCluster is suspended."""
    if spec.queue_name:
        return _queued(draft, spec, f"The RayCluster waits for the queue {spec.queue_name}.")
    return _queued(draft, spec, "The RayCluster is suspended, and waits until it is resumed.")


def queued_behind_previous_pods(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """Returns the status of an attempt whose resumed RayCluster still has pods from before its suspension."""
    return _queued(draft, spec, "The RayCluster continues once its pods from before the suspension are gone.")


def resumed(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """Returns the status of an attempt whose RayCluster was suspended and resumed between two reconciles."""
    return pause(draft, spec, _REASON, "The RayCluster was suspended, and is resumed.")


def _queued(draft: StatusBuilder, spec: Spec, message: str) -> StatusBuilder:
    return pause(draft.set(phase=Phase.QUEUED), spec, _REASON, message)
