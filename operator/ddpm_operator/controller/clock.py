"""The wall clock that deadlines are measured with. A jump of the machine's clock does not bring a deadline nearer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

# Maximum rate of correction, in seconds per second, while this clock and the machine's wall clock differ.
_MAX_SLEW = 0.1


class MonotonicWallClock:
    """A wall clock that never goes back. After a jump of the machine's clock it approaches the new time slowly.

    Args:
        wall: the machine's wall clock, in seconds since 1970.
        monotonic: a clock in seconds that cannot be set.
    """

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._time, self._last_read = wall(), monotonic()

    def now(self) -> datetime:
        """Returns the current time, in UTC."""
        monotonic = self._monotonic()
        elapsed, self._last_read = monotonic - self._last_read, monotonic
        difference = self._wall() - self._time - elapsed
        self._time += elapsed + max(-_MAX_SLEW * elapsed, min(difference, _MAX_SLEW * elapsed))
        return datetime.fromtimestamp(self._time, UTC)
