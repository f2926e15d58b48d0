"""A status in the making. Its conditions remember since when they hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from ddpm_operator.api import Condition, ConditionType, Status
from ddpm_operator.text import MAX_MESSAGE_LENGTH, clip

_ORDER = list(ConditionType)


@dataclass(frozen=True)
class StatusBuilder:
    """The status as far as it is written.

    Attributes:
        former: the status before this look.
        generation: of the spec that is looked at.
        now: in whole seconds, as a status keeps them.
    """

    status: Status
    former: Status | None
    generation: int
    now: datetime

    def put(self, **fields: object) -> Self:
        """Sets fields of the status."""
        return replace(self, status=self.status.model_copy(update=fields))

    def say(self, kind: ConditionType, holds: bool, reason: str, message: str) -> Self:
        """Sets a condition. Its lastTransitionTime moves only if its status is another than before this look."""
        word: Literal["True", "False"] = "True" if holds else "False"
        former = condition(self.former, kind)
        said = Condition(
            type=kind,
            status=word,
            reason=reason,
            message=clip(message, MAX_MESSAGE_LENGTH),
            last_transition_time=former.last_transition_time if former and former.status == word else self.now,
            observed_generation=self.generation,
        )
        others = [it for it in self.status.conditions if it.type != kind]
        return self.put(conditions=tuple(sorted([*others, said], key=lambda it: _ORDER.index(it.type))))

    def confirmed(self) -> Self:
        """The same, said of the spec that is looked at now."""
        conditions = (it.model_copy(update={"observed_generation": self.generation}) for it in self.status.conditions)
        return self.put(conditions=tuple(conditions), observed_generation=self.generation)

    def holds(self, kind: ConditionType) -> bool:
        return holds(self.status, kind)


def condition(status: Status | None, kind: ConditionType) -> Condition | None:
    """What a status says of one thing; None if nothing."""
    return next((it for it in status.conditions if it.type == kind), None) if status else None


def holds(status: Status | None, kind: ConditionType) -> bool:
    """Whether a status says that it is so."""
    found = condition(status, kind)
    return found is not None and found.status == "True"


def since(status: Status, kind: ConditionType) -> datetime | None:
    """Since when it is so; None if it is not."""
    found = condition(status, kind)
    return found.last_transition_time if found and found.status == "True" else None
