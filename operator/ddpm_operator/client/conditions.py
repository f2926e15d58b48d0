"""Reads a sampling's conditions: whether it has ended, and the message that describes its current state. Pure."""

from __future__ import annotations

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, Phase

_BEFORE_RUNNING = (Phase.PENDING, Phase.QUEUED, Phase.STARTING)
_TERMINAL = (ConditionType.COMPLETE, ConditionType.FAILED)


def holds(sampling: DDPMSampling, type: ConditionType) -> bool:
    """Returns whether a condition is True and observed for the current generation.

    So a complete sampling is not complete any more as soon as `samples` grows.
    """
    status = sampling.status
    if status is None or status.observed_generation != sampling.metadata.generation:
        return False
    found = condition(sampling, type)
    return found is not None and found.status == "True"


def condition(sampling: DDPMSampling, type: ConditionType) -> Condition | None:
    """Returns a condition of any generation; None if it is not set."""
    conditions = sampling.status.conditions if sampling.status else ()
    return next((it for it in conditions if it.type is type), None)


def has_ended(sampling: DDPMSampling) -> bool:
    """Returns whether a sampling is complete or has failed."""
    return any(holds(sampling, type) for type in _TERMINAL)


def status_message(sampling: DDPMSampling) -> str:
    """Returns one sentence on the current state: the failure, what it waits for, or its latest condition."""
    status = sampling.status
    if status is None:
        return "The operator has not reconciled it yet."
    if holds(sampling, ConditionType.FAILED) and status.failure:
        return f"{status.failure.reason}: {status.failure.message}"
    accepted, ready = (condition(sampling, type) for type in (ConditionType.ACCEPTED, ConditionType.CLUSTER_READY))
    if status.phase in _BEFORE_RUNNING and accepted and accepted.status == "False":
        return accepted.message
    if status.phase in _BEFORE_RUNNING and ready and ready.status == "False" and ready.reason != "NotBegun":
        return ready.message
    order = (
        ConditionType.COMPLETE,
        ConditionType.SUSPENDED,
        ConditionType.RUNNING,
        ConditionType.CLUSTER_READY,
        ConditionType.ACCEPTED,
    )
    latest = next((it for type in order if holds(sampling, type) and (it := condition(sampling, type))), None)
    return latest.message if latest else ""
