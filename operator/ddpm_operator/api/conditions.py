"""Reads the conditions of a status. Used by the operator and by its clients. Pure."""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api.reasons import ConditionType
from ddpm_operator.api.resource import DDPMSampling
from ddpm_operator.api.status import Condition, Status


def condition(status: Status | None, type: ConditionType) -> Condition | None:
    """Returns a condition; None if the status does not have it."""
    return next((it for it in status.conditions if it.type == type), None) if status else None


def holds(status: Status | None, type: ConditionType) -> bool:
    """Returns whether a condition is True, of whatever generation of the spec."""
    found = condition(status, type)
    return found is not None and found.status == "True"


def holds_for_current_spec(sampling: DDPMSampling, type: ConditionType) -> bool:
    """Returns whether a condition is True for the current generation: one that has just grown is not complete."""
    status = sampling.status
    return status is not None and status.observed_generation == sampling.metadata.generation and holds(status, type)


def true_since(status: Status, type: ConditionType) -> datetime | None:
    """Returns the time at which a condition became True; None if it is not True."""
    found = condition(status, type)
    return found.last_transition_time if found and found.status == "True" else None
