"""Builds the next status of a sampling, step by step, from the previous one.

Every step of a reconcile pass takes a builder and returns a new one. In the code of this package it is called `draft`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self, TypedDict, Unpack

from ddpm_operator.api import Condition, ConditionType, Failure, Phase, Plan, Progress, Status
from ddpm_operator.api.conditions import condition, holds
from ddpm_operator.api.status import Cluster as ClusterStatus
from ddpm_operator.api.status import Cost, Placement, Result
from ddpm_operator.text import MAX_MESSAGE_LENGTH, clip

_ORDER = list(ConditionType)


class StatusFields(TypedDict, total=False):
    """The fields of a `Status`. Its conditions are set by `StatusBuilder.set_condition`."""

    phase: Phase
    attempt: int
    failed_attempts: int | None
    running_seconds: int
    start_time: datetime | None
    completion_time: datetime | None
    image: str | None
    plan: Plan
    placement: Placement | None
    repaired: int | None
    progress: Progress | None
    cluster: ClusterStatus | None
    output: Result
    cost: Cost
    failure: Failure | None


class ClusterFields(TypedDict, total=False):
    """The fields of `status.cluster`, except its name."""

    dashboard: str
    start_time: datetime | None
    head_uid: str | None
    scheduled_time: datetime | None
    constrained: bool | None
    excluded_nodes: int | None
    repair: int | None


@dataclass(frozen=True)
class StatusBuilder:
    """The next status, as far as it is decided.

    Attributes:
        previous: the status before this reconcile pass.
        generation: of the observed spec.
        now: in whole seconds, the resolution of times in a status.
    """

    status: Status
    previous: Status | None
    generation: int
    now: datetime

    def set(self, **fields: Unpack[StatusFields]) -> Self:
        """Sets fields of the status."""
        return replace(self, status=self.status.model_copy(update=fields))

    def set_cluster(self, **fields: Unpack[ClusterFields]) -> Self:
        """Sets fields of status.cluster, if an attempt is active."""
        cluster = self.status.cluster
        return self.set(cluster=cluster.model_copy(update=fields)) if cluster else self

    def set_condition(self, type: ConditionType, holds: bool, reason: str, message: str) -> Self:
        """Sets a condition. Its lastTransitionTime changes only if its status differs from the previous one."""
        value: Literal["True", "False"] = "True" if holds else "False"
        previous = condition(self.previous, type)
        new = Condition(
            type=type,
            status=value,
            reason=reason,
            message=clip(message, MAX_MESSAGE_LENGTH),
            last_transition_time=previous.last_transition_time if previous and previous.status == value else self.now,
            observed_generation=self.generation,
        )
        others = [it for it in self.status.conditions if it.type != type]
        conditions = tuple(sorted([*others, new], key=lambda it: _ORDER.index(it.type)))
        return replace(self, status=self.status.model_copy(update={"conditions": conditions}))

    def observe_generation(self) -> Self:
        """Marks the status and all conditions as valid for the observed generation of the spec."""
        conditions = tuple(
            it.model_copy(update={"observed_generation": self.generation}) for it in self.status.conditions
        )
        update = {"conditions": conditions, "observed_generation": self.generation}
        return replace(self, status=self.status.model_copy(update=update))

    def holds(self, type: ConditionType) -> bool:
        """Returns whether a condition of the new status is True."""
        return holds(self.status, type)
