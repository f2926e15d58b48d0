"""The events of a change of the status. An operator that starts anew sees no change, and repeats none."""

from __future__ import annotations

from collections.abc import Iterator

from ddpm_operator.api import ConditionType, EventReason, Phase, Status
from ddpm_operator.reconcile.actions import Event
from ddpm_operator.reconcile.status_builder import condition, holds
from ddpm_operator.text import count

# Bytes of a message that the API server takes.
MAX_EVENT_LENGTH = 1024


def events(old: Status | None, new: Status) -> tuple[Event, ...]:
    """What there is to tell of a change, in the order it came about."""
    return tuple(_told(old, new))


def _told(old: Status | None, new: Status) -> Iterator[Event]:
    yield from _of_the_attempt_before(old, new)
    yield from _of_what_is_asked_for(old, new)
    yield from _of_the_attempt(old, new)
    yield from _of_the_end(old, new)


def _of_the_attempt_before(old: Status | None, new: Status) -> Iterator[Event]:
    failure = new.failure
    failed_before = (old.failed_attempts or 0) if old else 0
    if failure and (new.failed_attempts or 0) > failed_before and not holds(new, ConditionType.FAILED):
        yield _warning(
            EventReason.ATTEMPT_FAILED, f"Attempt {new.attempt} failed ({failure.reason}). {failure.message}"
        )


def _of_what_is_asked_for(old: Status | None, new: Status) -> Iterator[Event]:
    before = old.progress.total if old and old.progress else None
    after = new.progress.total if new.progress else None
    if before is not None and after is not None and after > before:
        yield _normal(EventReason.GROWN, f"{count(after, 'sample')} are asked for now instead of {before:,}.")
    if _became(old, new, ConditionType.SUSPENDED):
        yield _normal(EventReason.SUSPENDED, _message(new, ConditionType.SUSPENDED))
    elif holds(old, ConditionType.SUSPENDED) and not holds(new, ConditionType.SUSPENDED):
        yield _normal(EventReason.RESUMED, _message(new, ConditionType.SUSPENDED))


def _of_the_attempt(old: Status | None, new: Status) -> Iterator[Event]:
    number = (old.attempt or 0) if old else 0
    if _became(old, new, ConditionType.ACCEPTED):
        yield _normal(EventReason.ACCEPTED, _message(new, ConditionType.ACCEPTED))
    elif old and old.failure and (new.attempt or 0) > number:
        yield _normal(EventReason.RETRYING, f"Attempt {new.attempt} begins after {old.failure.reason}.")
    if new.phase == Phase.QUEUED and (old is None or old.phase != Phase.QUEUED):
        yield _normal(EventReason.QUEUED, _message(new, ConditionType.CLUSTER_READY))
    if new.cluster and new.cluster.dashboard and not (old and old.cluster and old.cluster.dashboard):
        yield _normal(EventReason.CLUSTER_CREATED, f"The RayCluster {new.cluster.name} is there.")
    if _became(old, new, ConditionType.RUNNING):
        yield _normal(EventReason.STARTED, f"Attempt {new.attempt} draws samples.")


def _of_the_end(old: Status | None, new: Status) -> Iterator[Event]:
    accepted = condition(new, ConditionType.ACCEPTED)
    rejected_before = condition(old, ConditionType.ACCEPTED)
    if accepted and accepted.status == "False" and not (rejected_before and rejected_before.status == "False"):
        yield _warning(EventReason.REJECTED, accepted.message)
    if _became(old, new, ConditionType.COMPLETE):
        yield _normal(EventReason.COMPLETED, _message(new, ConditionType.COMPLETE))
    if _became(old, new, ConditionType.FAILED):
        yield _warning(EventReason.FAILED, _message(new, ConditionType.FAILED))
    if old is not None and _became(old, new, ConditionType.CLEANED_UP):
        yield _normal(EventReason.CLUSTER_DELETED, _message(new, ConditionType.CLEANED_UP))


def _became(old: Status | None, new: Status, kind: ConditionType) -> bool:
    return holds(new, kind) and not holds(old, kind)


def _message(status: Status, kind: ConditionType) -> str:
    found = condition(status, kind)
    return found.message if found else ""


def _normal(reason: EventReason, message: str) -> Event:
    return Event("Normal", reason, _clipped(message))


def _warning(reason: EventReason, message: str) -> Event:
    return Event("Warning", reason, _clipped(message))


def _clipped(message: str) -> str:
    text = message.encode()
    if len(text) <= MAX_EVENT_LENGTH:
        return message
    return text[: MAX_EVENT_LENGTH - len("…".encode())].decode(errors="ignore") + "…"
