"""Which pod is the head of an attempt, and whether and why the attempt has lost it.

The head runs Ray's control plane and the driver, so its end is the end of the attempt. It is lost if its pod ends, is
deleted, restarts its container or is replaced by another pod, if the RayCluster is deleted, or if the head does not
answer for `MAX_SILENCE`. Every one of these becomes a `Problem`, mostly with the reason HeadLost, and
`ddpm_operator.reconcile.attempts.fail` ends the attempt with it. The next attempt starts with a new head: KubeRay does
not replace a dead one, because of restartPolicy Never, which ``templates/pod.yaml.j2`` sets, and
`_DISABLE_HEAD_RESTART`; `ddpm_operator.manifests.render` requires both.

A head that goes because its RayCluster is suspended is not a failure, see `ddpm_operator.reconcile.kueue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ddpm_operator.api import FailureReason
from ddpm_operator.api.status import Cluster as ClusterStatus
from ddpm_operator.reconcile.diagnosis import OOM_KILLED, describe_termination, failed_termination
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable, Observed, ObservedPod, Terminated
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.text import as_sentence, duration

# A head that has answered once, and then fails to answer for this long, is dead.
MAX_SILENCE = timedelta(minutes=5)


def head_pods(observed: Observed) -> Sequence[ObservedPod]:
    """Returns the head pods of the attempt's cluster, including those that are being deleted."""
    return [pod for pod in observed.cluster_pods if pod.role == "head"]


def previous_head(observed: Observed, recorded: ClusterStatus, admitted: datetime | None) -> ObservedPod | None:
    """Returns the head from before the cluster was suspended, if its pod still exists.

    Args:
        admitted: when the attempt was admitted; None if it waits for that.
    """
    if admitted:
        return None
    return next((pod for pod in head_pods(observed) if pod.uid == recorded.head_uid), None)


def bound_head(observed: Observed, recorded: ClusterStatus, admitted: datetime | None) -> str | None:
    """Returns the uid of the pod that is the attempt's head from its admission on; None while there is none.

    The attempt is bound to the first head pod it gets, and any other head pod is a failure. A head that was deleted
    before the attempt was bound to it is ignored. After a suspension, a head that was not deleted remains the head.
    """
    uid = recorded.head_uid
    if admitted is None:
        previous = previous_head(observed, recorded, admitted)
        uid = previous.uid if previous and not previous.deleted else None
    candidates = [pod for pod in head_pods(observed) if not pod.deleted]
    if uid or not candidates:
        return uid
    return (observed.head or candidates[0]).uid


def head_failure(observed: Observed, recorded: ClusterStatus, uid: str | None, memory: str) -> Problem | None:
    """Returns why the head of an attempt is lost; None if it is not, or if the attempt has none yet.

    Args:
        uid: the head's, see `bound_head`.
        memory: the head's memory limit.
    """
    if uid is None:
        return None
    pods = [*head_pods(observed), *([observed.last_deleted_head] if observed.last_deleted_head else [])]
    head = next((pod for pod in pods if pod.uid == uid), None)
    if head is None:
        message = f"The head pod of the RayCluster {recorded.name} is gone."
        return Problem(FailureReason.HEAD_LOST, message, certain=True)
    terminations = [it for container in head.containers if (it := failed_termination(container))]
    if not head.disruption and any(it.reason == OOM_KILLED for it in terminations):
        message = f"The head pod {head.name} needed more memory than its limit of {memory}."
        return Problem(FailureReason.OUT_OF_MEMORY, message, certain=True)
    if head.finished or head.deleted or terminations or any(container.restarts for container in head.containers):
        return Problem(FailureReason.HEAD_LOST, _description(head, terminations), certain=True)
    return None


def unreachable_head(poll: HeadUnreachable | HeadResponse | None, now: datetime) -> Problem | None:
    """Returns the failure of a head that has not answered for `MAX_SILENCE`; None if it has, or was not polled."""
    if not isinstance(poll, HeadUnreachable) or now < poll.since + MAX_SILENCE:
        return None
    silent = f"The head has not answered for {duration(MAX_SILENCE.total_seconds())}"
    message = as_sentence(f"{silent}: {poll.message}" if poll.message else silent)
    return Problem(FailureReason.HEAD_LOST, message, certain=True)


def deleted_cluster(recorded: ClusterStatus) -> Problem:
    """Returns the failure of an attempt whose RayCluster, and with it the head, was deleted by another client."""
    message = f"The RayCluster {recorded.name} was deleted, and not by the operator."
    return Problem(FailureReason.HEAD_LOST, message, certain=True)


def _description(head: ObservedPod, terminations: Sequence[Terminated]) -> str:
    cause = f"{head.reason}: {head.message}" if head.reason else head.disruption
    if not cause and terminations:
        cause = describe_termination(terminations[-1])
    if not cause and head.deleted:
        cause = "it was deleted"
    return as_sentence(f"The head pod {head.name} is lost: {cause or 'it has ended'}")
