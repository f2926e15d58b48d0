"""Measures how long a condition has held without interruption. Pure: the caller passes the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ConditionTimer:
    """A stopwatch that restarts whenever its condition stops holding."""

    _since: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the condition held at the last update."""
        return self._since is not None

    def update(self, holds: bool, now: float) -> float:
        """Records whether the condition holds now; returns the seconds for which it has held, 0 if it does not."""
        if not holds:
            self._since = None
            return 0.0
        if self._since is None:
            self._since = now
        return now - self._since
