"""Derives the Kubernetes events from a change of the status, so that a restarted operator repeats none."""

from __future__ import annotations

from collections.abc import Iterator

from ddpm_operator.api import ConditionType, EventReason, Phase, Status
from ddpm_operator.api.conditions import condition, holds
from ddpm_operator.reconcile.actions import Event
from ddpm_operator.text import count

# The API server's limit, in bytes.
MAX_EVENT_LENGTH = 1024


def events(old: Status | None, new: Status) -> tuple[Event, ...]:
    """Returns the events of a change, in the order in which the changes came about."""
    return tuple(_events(old, new))


def _events(old: Status | None, new: Status) -> Iterator[Event]:
    yield from _failed_attempt(old, new)
    yield from _other_hardware(old, new)
    yield from _changes_of_spec(old, new)
    yield from _active_attempt(old, new)
    yield from _end(old, new)


def _failed_attempt(old: Status | None, new: Status) -> Iterator[Event]:
    failure = new.failure
    failed_before = (old.failed_attempts or 0) if old else 0
    if failure and (new.failed_attempts or 0) > failed_before and not holds(new, ConditionType.FAILED):
        message = f"Attempt {new.attempt} failed ({failure.reason}). {failure.message}"
        yield _warning(EventReason.ATTEMPT_FAILED, message)


def _other_hardware(old: Status | None, new: Status) -> Iterator[Event]:
    ready = condition(new, ConditionType.CLUSTER_READY)
    if old and old.cluster and not new.cluster and ready and ready.reason == EventReason.OTHER_HARDWARE:
        yield _warning(EventReason.OTHER_HARDWARE, ready.message)
        return
    known = old.placement.excluded_nodes if old and old.placement else ()
    nodes = [node for node in (new.placement.excluded_nodes if new.placement else ()) if node not in known]
    if nodes:
        message = f"Other hardware than that of the stored samples. Later attempts avoid {', '.join(nodes)}."
        yield _warning(EventReason.OTHER_HARDWARE, message)


def _changes_of_spec(old: Status | None, new: Status) -> Iterator[Event]:
    before = old.progress.total if old and old.progress else None
    after = new.progress.total if new.progress else None
    if before is not None and after is not None and after > before:
        yield _normal(EventReason.GROWN, f"{count(after, 'sample')} are requested now instead of {before:,}.")
    if _became_true(old, new, ConditionType.SUSPENDED):
        yield _normal(EventReason.SUSPENDED, _message(new, ConditionType.SUSPENDED))
    elif holds(old, ConditionType.SUSPENDED) and not holds(new, ConditionType.SUSPENDED):
        yield _normal(EventReason.RESUMED, _message(new, ConditionType.SUSPENDED))


def _active_attempt(old: Status | None, new: Status) -> Iterator[Event]:
    number = (old.attempt or 0) if old else 0
    if _became_true(old, new, ConditionType.ACCEPTED):
        yield _normal(EventReason.ACCEPTED, _message(new, ConditionType.ACCEPTED))
    elif old and old.failure and (new.attempt or 0) > number:
        yield _normal(EventReason.RETRYING, f"Attempt {new.attempt} begins after {old.failure.reason}.")
    if new.phase == Phase.QUEUED and (old is None or old.phase != Phase.QUEUED):
        yield _normal(EventReason.QUEUED, _message(new, ConditionType.CLUSTER_READY))
    if new.cluster and new.cluster.was_seen and not (old and old.cluster and old.cluster.was_seen):
        yield _normal(EventReason.CLUSTER_CREATED, f"The RayCluster {new.cluster.name} is created.")
    if new.cluster and new.cluster.repair is not None and (new.attempt or 0) > number:
        yield _normal(EventReason.REPAIRING, f"Attempt {new.attempt} checks all stored files.")
    if _became_true(old, new, ConditionType.RUNNING):
        yield _normal(EventReason.STARTED, f"Attempt {new.attempt} draws samples.")


def _end(old: Status | None, new: Status) -> Iterator[Event]:
    accepted = condition(new, ConditionType.ACCEPTED)
    accepted_before = condition(old, ConditionType.ACCEPTED)
    if accepted and accepted.status == "False" and not (accepted_before and accepted_before.status == "False"):
        yield _warning(EventReason.REJECTED, accepted.message)
    if _became_true(old, new, ConditionType.COMPLETE):
        yield _normal(EventReason.COMPLETED, _message(new, ConditionType.COMPLETE))
    if _became_true(old, new, ConditionType.FAILED):
        yield _warning(EventReason.FAILED, _message(new, ConditionType.FAILED))
    if old is not None and _became_true(old, new, ConditionType.CLEANED_UP):
        yield _normal(EventReason.CLUSTER_DELETED, _message(new, ConditionType.CLEANED_UP))


def _became_true(old: Status | None, new: Status, type: ConditionType) -> bool:
    return holds(new, type) and not holds(old, type)


def _message(status: Status, type: ConditionType) -> str:
    found = condition(status, type)
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
