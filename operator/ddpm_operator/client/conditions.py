"""What is true of a sampling just now, as its conditions say it of the spec that it has. Pure."""

from __future__ import annotations

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, Phase

_BEFORE_IT_RUNS = (Phase.PENDING, Phase.QUEUED, Phase.STARTING)
_ENDS = (ConditionType.COMPLETE, ConditionType.FAILED)


def holds(sampling: DDPMSampling, type: ConditionType) -> bool:
    """Whether a condition is True, and said of the present spec: one that has just grown is not complete."""
    status = sampling.status
    if status is None or status.observed_generation != sampling.metadata.generation:
        return False
    found = condition(sampling, type)
    return found is not None and found.status == "True"


def condition(sampling: DDPMSampling, type: ConditionType) -> Condition | None:
    conditions = sampling.status.conditions if sampling.status else ()
    return next((one for one in conditions if one.type is type), None)


def has_ended(sampling: DDPMSampling) -> bool:
    """Whether it is complete or has failed."""
    return any(holds(sampling, type) for type in _ENDS)


def status_message(sampling: DDPMSampling) -> str:
    """What there is to say of it just now."""
    status = sampling.status
    if status is None:
        return "No operator has looked at it yet."
    if holds(sampling, ConditionType.FAILED) and status.failure:
        return f"{status.failure.reason}: {status.failure.message}"
    accepted, ready = (condition(sampling, type) for type in (ConditionType.ACCEPTED, ConditionType.CLUSTER_READY))
    if status.phase in _BEFORE_IT_RUNS and accepted and accepted.status == "False":
        return accepted.message
    if status.phase in _BEFORE_IT_RUNS and ready and ready.status == "False" and ready.reason != "NotBegun":
        return ready.message
    order = (
        ConditionType.COMPLETE,
        ConditionType.SUSPENDED,
        ConditionType.RUNNING,
        ConditionType.CLUSTER_READY,
        ConditionType.ACCEPTED,
    )
    told = next((one for type in order if holds(sampling, type) and (one := condition(sampling, type))), None)
    return told.message if told else ""
