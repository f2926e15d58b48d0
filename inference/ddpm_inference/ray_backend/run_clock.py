"""The seconds that a run has had a chance to make progress in. Pure: the caller passes the time."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TICK_SECONDS = 5.0


@dataclass
class RunClock:
    """A clock that stands still while the run cannot advance.

    A driver that was stopped for an hour (SIGSTOP, a frozen container), or that waited for its own storage, must not
    conclude that its workers hang. So no tick counts more than `MAX_TICK_SECONDS`.

    Attributes:
        seconds: what has been counted so far.
    """

    seconds: float = 0.0
    _last: float | None = None

    def tick(self, now: float, *, paused: bool = False) -> None:
        """Counts the time since the last tick, unless the run is paused.

        Args:
            now: seconds of a monotonic clock.
        """
        if self._last is not None and not paused:
            self.seconds += min(now - self._last, MAX_TICK_SECONDS)
        self._last = now
