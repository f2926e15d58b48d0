"""When something is due. Every clock starts from a time in the status, so that none is lost with the operator."""

from __future__ import annotations

from datetime import datetime, timedelta

from ddpm_operator.api import ConditionType, Spec, Status
from ddpm_operator.reconcile.status_builder import condition, since

FIRST_BACKOFF = timedelta(seconds=10)
MAX_BACKOFF = timedelta(minutes=6)
# How long something may be missing that is created together with the sampling, in whatever order.
GRACE = timedelta(seconds=15)
# A head that is ready, but answers nobody for so long, does not come back.
MAX_SILENCE = timedelta(minutes=5)
# A pod is given five seconds to end. One that is still there so long after lies on a node that is gone.
STUCK_POD = timedelta(seconds=60)


def not_ahead(status: Status, now: datetime) -> Status:
    """The status of an operator whose clock went ahead of this one's: what lies in the future is of now.

    Else whatever is counted from there would be waited for until then.
    """
    failure, cluster, progress = status.failure, status.cluster, status.progress
    return status.model_copy(
        update={
            "completion_time": _by(status.completion_time, now),
            "failure": failure and failure.model_copy(update={"time": _by(failure.time, now)}),
            "cluster": cluster and cluster.model_copy(update={"start_time": _by(cluster.start_time, now)}),
            "progress": progress
            and progress.model_copy(update={"last_update_time": _by(progress.last_update_time, now)}),
            "conditions": tuple(
                it.model_copy(update={"last_transition_time": _by(it.last_transition_time, now)})
                for it in status.conditions
            ),
        }
    )


def _by(time: datetime | None, now: datetime) -> datetime | None:
    return min(time, now) if time else None


def startup_deadline(spec: Spec, status: Status) -> datetime | None:
    """When an attempt must have begun to sample; None before its admission."""
    admitted = status.cluster.start_time if status.cluster else None
    return admitted + timedelta(seconds=spec.startup_deadline_seconds) if admitted else None


def running_seconds(status: Status, now: datetime) -> int:
    """Seconds of running that count for the deadline, those of former attempts included."""
    running = since(status, ConditionType.RUNNING)
    present = round((now - running).total_seconds()) if running else 0
    return (status.running_seconds or 0) + max(0, present)


def active_deadline(spec: Spec, status: Status, now: datetime) -> datetime | None:
    """When the sampling will have run for as long as it may; None if it does not run, or may for ever."""
    if spec.active_deadline_seconds is None or since(status, ConditionType.RUNNING) is None:
        return None
    return now + timedelta(seconds=spec.active_deadline_seconds - running_seconds(status, now))


def backoff(failed_attempts: int) -> timedelta:
    """How long the next attempt waits: 10 s, 20 s, 40 s … at most 6 minutes, as Kubernetes' own Jobs do."""
    return min(FIRST_BACKOFF * (1 << min(failed_attempts - 1, 10)), MAX_BACKOFF)


def retry_time(status: Status) -> datetime | None:
    """When the next attempt may begin; None if the last one did not fail."""
    failed = status.failure.time if status.failure else None
    return failed + backoff(status.failed_attempts or 1) if failed else None


def kept_until(spec: Spec, status: Status) -> datetime | None:
    """Until when a failed attempt's cluster is kept; None if there was no failure, or nothing was to be run."""
    accepted = condition(status, ConditionType.ACCEPTED)
    if accepted and accepted.status == "False":
        return None
    failed = status.failure.time if status.failure else None
    return failed + timedelta(seconds=spec.keep_cluster_seconds) if failed else None


def expiry(spec: Spec, status: Status) -> datetime | None:
    """When a finished resource is deleted; None if never."""
    if spec.ttl_seconds_after_finished is None or status.completion_time is None:
        return None
    return status.completion_time + timedelta(seconds=spec.ttl_seconds_after_finished)
