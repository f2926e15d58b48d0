"""The time of day for deadlines, which a machine's clock that is set does not bring nearer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

# Seconds by which a second may be longer or shorter, as long as the machine's clock is another.
_PACE = 0.1


class MonotonicWallClock:
    """Goes evenly. When the machine's clock jumps, this one follows at a walk, and never goes back.

    Args:
        wall: the machine's clock, in seconds since 1970.
        passed: seconds of a clock that nobody sets.
    """

    def __init__(self, wall: Callable[[], float], passed: Callable[[], float]) -> None:
        self._wall = wall
        self._passed = passed
        self._time, self._looked = wall(), passed()

    def now(self) -> datetime:
        """The time, with its zone."""
        passed = self._passed()
        elapsed, self._looked = passed - self._looked, passed
        behind = self._wall() - self._time - elapsed
        self._time += elapsed + max(-_PACE * elapsed, min(behind, _PACE * elapsed))
        return datetime.fromtimestamp(self._time, UTC)
