"""How long shards take, and which one takes too long on its worker. Pure: the caller passes the time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from ddpm_inference.job import Shard

SLOW_FACTOR = 10.0
MIN_SLOW_SECONDS = 60.0
MIN_RESULTS = 3
MAX_SECONDS_WITHOUT_STEP = 1800.0
RECENT_RESULTS = 100


@dataclass
class RunningShard:
    """A shard that a worker is sampling now.

    Attributes:
        since: when the worker began it, in seconds of the run's clock.
        results_before: the results of other shards that there were by then.
        last_step: when its fraction last changed.
        fraction: what is done of it, 0 to 1; None before the first step.
    """

    shard: Shard
    since: float
    results_before: int
    last_step: float
    fraction: float | None = None

    def observe(self, fraction: float, now: float) -> None:
        """Records the fraction that is done at a time."""
        if fraction != self.fraction:
            self.fraction, self.last_step = fraction, now


@dataclass
class ShardTimes:
    """The times of the shards of one run.

    Args:
        timeout: the seconds that a shard may take; None to compare it with the others.
        first_grace: more seconds for the first shard of a worker, in which it may compile its network.
    """

    timeout: float | None = None
    first_grace: float = 0.0
    _results: int = 0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_RESULTS))

    def begin(self, shard: Shard, now: float) -> RunningShard:
        """Returns the record of a shard that a worker begins now."""
        return RunningShard(shard, now, self._results, now)

    def end(self, running: RunningShard, now: float) -> None:
        """Records that a shard was sampled."""
        self._results += 1
        self._recent.append(now - running.since)

    def excess(self, running: RunningShard, now: float, *, is_first: bool) -> str | None:
        """Returns why a shard takes too long, as the end of a sentence about it; None if it does not.

        With a `timeout`, that decides alone. Otherwise a shard is too slow if it takes `SLOW_FACTOR` times the median
        of the others (and `MIN_SLOW_SECONDS`), and either makes no step any more or sees others finish meanwhile: on a
        machine that became slow for all of them, none is. Before there is a median, only a shard without any step for
        `MAX_SECONDS_WITHOUT_STEP` is too slow.

        Args:
            is_first: whether it is the first shard of its worker.
        """
        seconds, without_step = now - running.since, now - running.last_step
        if self.timeout is not None:
            return f"longer than --shard_timeout {self.timeout:g}" if seconds > self.timeout else None
        grace = self.first_grace if is_first else 0.0
        if without_step > MAX_SECONDS_WITHOUT_STEP + grace:
            return f"with no step for {without_step:.0f} s"
        if len(self._recent) < MIN_RESULTS:
            return None
        usual = median(self._recent)
        limit = max(SLOW_FACTOR * usual, MIN_SLOW_SECONDS) + grace
        overtaken = self._results - running.results_before >= MIN_RESULTS
        if seconds > limit and (overtaken or without_step > limit):
            return f"where others take {usual:.1f} s"
        return None
