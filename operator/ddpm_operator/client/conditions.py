"""What a sampling's conditions tell a user: whether it has ended, and a message on its current state. Pure."""

from __future__ import annotations

from ddpm_operator.api import ConditionType, DDPMSampling, Phase
from ddpm_operator.api.conditions import condition, holds_for_current_spec

_BEFORE_RUNNING = (Phase.PENDING, Phase.QUEUED, Phase.STARTING)
_TERMINAL = (ConditionType.COMPLETE, ConditionType.FAILED)


def has_ended(sampling: DDPMSampling) -> bool:
    """Returns whether a sampling is complete or has failed."""
    return any(holds_for_current_spec(sampling, type) for type in _TERMINAL)


def status_message(sampling: DDPMSampling) -> str:
    """Returns one sentence on the current state: the failure, what it waits for, or its latest condition."""
    status = sampling.status
    if status is None:
        return "The operator has not reconciled it yet."
    if holds_for_current_spec(sampling, ConditionType.FAILED) and status.failure:
        return f"{status.failure.reason}: {status.failure.message}"
    accepted, ready = (condition(status, type) for type in (ConditionType.ACCEPTED, ConditionType.CLUSTER_READY))
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
    true_conditions = (condition(status, type) for type in order if holds_for_current_spec(sampling, type))
    latest = next(filter(None, true_conditions), None)
    return latest.message if latest else ""
