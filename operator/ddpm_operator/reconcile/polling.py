"""All intervals: of reconciles without a watch event, of polls of a head, and of writes of the progress.

Changes of Kubernetes objects arrive through watches. The driver's state does not, so its head is polled.
"""

from __future__ import annotations

from datetime import datetime, timedelta

# Fallback polls: the watch normally reports the change first.
RESYNC = timedelta(seconds=10)
CREATION_RESYNC = timedelta(seconds=5)
# Queued samplings are woken explicitly; this is the fallback poll.
ADMISSION_RESYNC = timedelta(minutes=1)
# The operator does not watch PersistentVolumeClaims.
CLAIM_POLL = timedelta(seconds=2)

# Status writes that change nothing but the figures of the progress are at least this far apart.
PROGRESS_WRITE_INTERVAL = timedelta(seconds=3)

_MIN_REQUEUE = timedelta(seconds=0.25)
# The driver is submitted when a starting head answers for the first time. Once the head is ready, the driver takes
# seconds to start, so polls can be rarer.
_STARTING_HEAD_POLL = timedelta(seconds=0.5)
_READY_HEAD_POLL = timedelta(seconds=1)
# The shortest interval while the driver's estimate of the remaining time is near zero.
_ENDING_DRIVER_POLL = timedelta(seconds=0.5)
# Every interval is at most 1/40 of the attempt's age, so polling delays an attempt of 10 s or more by at most 2.5 %.
# The intervals of a younger one are `_MIN_REQUEUE`.
_POLL_FRACTION = 1 / 40


def head_poll_interval(age: timedelta | None, *, head_ready: bool) -> timedelta:
    """Returns the time until the next poll of a head whose driver has not reported progress.

    Args:
        age: of the attempt, since its admission; None if it is not admitted.
    """
    return _limited_by_age(_READY_HEAD_POLL if head_ready else _STARTING_HEAD_POLL, age)


def progress_poll_interval(age: timedelta | None, eta_seconds: float | None) -> timedelta:
    """Returns the time until the next poll of a driver that reports progress.

    There is nothing new to write for `PROGRESS_WRITE_INTERVAL`, but the driver's end should be noticed at once.

    Args:
        age: of the attempt, since its admission; None if it is not admitted.
        eta_seconds: the driver's own estimate of the remaining time.
    """
    if eta_seconds is None:
        return _limited_by_age(_READY_HEAD_POLL, age)
    shortest = _limited_by_age(_ENDING_DRIVER_POLL, age)
    return min(max(timedelta(seconds=eta_seconds), shortest), PROGRESS_WRITE_INTERVAL)


def requeue_after(requeue_at: datetime | None, now: datetime) -> timedelta | None:
    """Returns the time until the next reconcile, never so short that the passes become a busy loop."""
    return max(requeue_at - now, _MIN_REQUEUE) if requeue_at else None


def _limited_by_age(interval: timedelta, age: timedelta | None) -> timedelta:
    return min(interval, age * _POLL_FRACTION) if age is not None else interval
