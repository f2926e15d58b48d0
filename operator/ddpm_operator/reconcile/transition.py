"""The result of a reconcile pass in one state of a sampling: the next status, and the actions around its write."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ddpm_operator.reconcile.actions import Action
from ddpm_operator.reconcile.status_builder import StatusBuilder


@dataclass(frozen=True)
class Transition:
    """The next status and the actions that belong to it.

    Attributes:
        before_write: actions whose result the status reports.
        after_write: actions that must not happen before the status is written.
        requeue_at: when to reconcile again if no watch event arrives; None if that is not needed.
    """

    draft: StatusBuilder
    before_write: tuple[Action, ...] = ()
    after_write: tuple[Action, ...] = ()
    requeue_at: datetime | None = None


def earliest(*times: datetime | None) -> datetime | None:
    """Returns the earliest of the times that are not None; None if all are."""
    return min((time for time in times if time is not None), default=None)
