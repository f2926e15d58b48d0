"""Deadlines and other times at which something is due, and the failures of an attempt that misses its deadline.

Every duration counts from a time in the status, so that none is lost when the operator restarts.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ddpm_operator.api import ConditionType, FailureReason, Spec, Status
from ddpm_operator.api.conditions import condition, true_since
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.text import duration

FIRST_BACKOFF = timedelta(seconds=10)
MAX_BACKOFF = timedelta(minutes=6)
# How long an object may be missing that is created together with the sampling, in any order.
GRACE = timedelta(seconds=15)
# The pods' grace period is 5 s. One that is still there so long after its deletion is on a node that is gone.
STUCK_POD_TIMEOUT = timedelta(seconds=60)


def clamped_to(status: Status, now: datetime) -> Status:
    """Returns the status with every time that lies in the future replaced by `now`.

    Such times were written by an operator whose clock was ahead. Whatever counts from them would be delayed until then.
    """
    failure, cluster, progress = status.failure, status.cluster, status.progress
    placement = status.placement
    return status.model_copy(
        update={
            "completion_time": _clamped(status.completion_time, now),
            "failure": failure and failure.model_copy(update={"time": _clamped(failure.time, now)}),
            "cluster": cluster and cluster.model_copy(update={"start_time": _clamped(cluster.start_time, now)}),
            "placement": placement
            and placement.model_copy(update={"last_unscheduled_time": _clamped(placement.last_unscheduled_time, now)}),
            "progress": progress
            and progress.model_copy(update={"last_update_time": _clamped(progress.last_update_time, now)}),
            "conditions": tuple(
                it.model_copy(update={"last_transition_time": _clamped(it.last_transition_time, now)})
                for it in status.conditions
            ),
        }
    )


def _clamped(time: datetime | None, now: datetime) -> datetime | None:
    return min(time, now) if time else None


def startup_deadline(
    spec: Spec, admitted: datetime | None, poll: HeadUnreachable | HeadResponse | None
) -> datetime | None:
    """Returns the time by which an attempt must have begun sampling; None before its admission.

    A head that has just failed to answer may have begun in time: an operator that was away polls it for the first
    time. It gets `GRACE` from the first poll that failed.
    """
    if admitted is None:
        return None
    deadline = admitted + timedelta(seconds=spec.startup_deadline_seconds)
    return max(deadline, poll.since + GRACE) if isinstance(poll, HeadUnreachable) else deadline


def missed_startup_deadline(spec: Spec, problem: Problem | None, what: str, progress: str = "") -> Problem:
    """Returns the failure of an attempt that did not start in time.

    Args:
        problem: what delayed it, if known.
        what: the subject of the message, such as "The attempt did not begin sampling".
        progress: how far it came, as a sentence, or "".
    """
    missed = f"{what} within {duration(spec.startup_deadline_seconds)} of its admission."
    if problem:
        return replace(problem, message=f"{problem.message} {missed}")
    return Problem(FailureReason.STARTUP_DEADLINE_EXCEEDED, f"{missed} {progress}".rstrip(), certain=True)


def running_seconds(status: Status, now: datetime) -> int:
    """Returns the seconds of running that count for activeDeadlineSeconds, previous attempts included."""
    running = true_since(status, ConditionType.RUNNING)
    present = round((now - running).total_seconds()) if running else 0
    return (status.running_seconds or 0) + max(0, present)


def active_deadline(spec: Spec, status: Status, now: datetime) -> datetime | None:
    """Returns the time at which activeDeadlineSeconds end; None without that limit or while it is not Running."""
    if spec.active_deadline_seconds is None or true_since(status, ConditionType.RUNNING) is None:
        return None
    return now + timedelta(seconds=spec.active_deadline_seconds - running_seconds(status, now))


def exceeded_active_deadline(spec: Spec) -> Problem:
    """Returns the failure of a sampling that has run for activeDeadlineSeconds."""
    limit = duration(spec.active_deadline_seconds or 0)
    message = f"It has run for {limit}, the limit that spec.activeDeadlineSeconds sets."
    return Problem(FailureReason.DEADLINE_EXCEEDED, message, certain=True)


def backoff(failed_attempts: int) -> timedelta:
    """Returns the pause before the next attempt: 10 s, 20 s, 40 s … at most 6 minutes, as Kubernetes' own Jobs do."""
    return min(FIRST_BACKOFF * (1 << min(failed_attempts - 1, 10)), MAX_BACKOFF)


def retry_time(status: Status) -> datetime | None:
    """Returns the time at which the next attempt may begin; None if the last one did not fail."""
    failed = status.failure.time if status.failure else None
    return failed + backoff(status.failed_attempts or 1) if failed else None


def kept_until(spec: Spec, status: Status) -> datetime | None:
    """Returns the time until which a failed attempt's cluster is kept; None without a failure or after a rejection."""
    accepted = condition(status, ConditionType.ACCEPTED)
    if accepted and accepted.status == "False":
        return None
    failed = status.failure.time if status.failure else None
    return failed + timedelta(seconds=spec.keep_cluster_seconds) if failed else None


def expiry(spec: Spec, status: Status) -> datetime | None:
    """Returns the time at which a finished resource is deleted (ttlSecondsAfterFinished); None if never."""
    if spec.ttl_seconds_after_finished is None or status.completion_time is None:
        return None
    return status.completion_time + timedelta(seconds=spec.ttl_seconds_after_finished)
