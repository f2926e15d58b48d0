"""What one state of a sampling makes of a look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ddpm_operator.reconcile.actions import Action
from ddpm_operator.reconcile.status_builder import StatusBuilder


@dataclass(frozen=True)
class Transition:
    """The status to be, and what is done about it.

    Attributes:
        before: actions whose result the status tells of.
        after: actions that must not happen without the status.
        look: when to look again if nothing is heard; None: need not be.
    """

    draft: StatusBuilder
    before: tuple[Action, ...] = ()
    after: tuple[Action, ...] = ()
    look: datetime | None = None


def earliest(*times: datetime | None) -> datetime | None:
    """The first of the times that there are."""
    return min((time for time in times if time is not None), default=None)
