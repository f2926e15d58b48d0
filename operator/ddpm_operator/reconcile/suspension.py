"""A cluster that others suspend, as Kueue does, and let in again: its pods go, and it stays the same attempt's."""

from __future__ import annotations

from collections.abc import Sequence

from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable, Observed, ObservedCluster, ObservedPod
from ddpm_operator.reconcile.status_builder import StatusBuilder


def was_suspended(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> bool:
    """Its head went with a suspension that came and passed while no operator looked."""
    known = draft.status.cluster
    if known is None or known.head_uid is None or cluster.resumed is None:
        return False
    lives = any(pod.uid == known.head_uid and not pod.deleted and not pod.over for pod in heads(observed))
    begun = known.scheduled_time or known.start_time
    return not lives and begun is not None and cluster.resumed > begun


def former_head(observed: Observed, draft: StatusBuilder) -> ObservedPod | None:
    """The head of the time before the cluster was suspended, if it is still to be seen."""
    known = draft.status.cluster
    if known is None or known.start_time:
        return None
    return next((pod for pod in heads(observed) if pod.uid == known.head_uid), None)


def waits_for_former_pods(observed: Observed, draft: StatusBuilder) -> bool:
    """Its queue has let the cluster in again, and the former head is seen still: it goes, or is gone already.

    One that answers was not taken away at all, and one that has not done so for long does not come back.
    """
    former, driver, now = former_head(observed, draft), observed.driver, draft.now
    if former is None or isinstance(driver, HeadResponse):
        return False
    if former.deleted:
        return former.deleted > now - deadlines.STUCK_POD
    return not isinstance(driver, HeadUnreachable) or now < driver.since + deadlines.MAX_SILENCE


def heads(observed: Observed) -> Sequence[ObservedPod]:
    """The head pods of the attempt's cluster, those that are going away included."""
    return [pod for pod in observed.cluster_pods if pod.role == "head"]
