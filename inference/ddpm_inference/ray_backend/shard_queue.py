"""The book of a run: which shard goes to which worker next, and what became of each. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from ddpm_inference.errors import DdpmError, WorkerLost
from ddpm_inference.job import Shard

ATTEMPTS = 3
HOPELESS = 4


@dataclass
class _Troubled:
    """A shard that failed before."""

    shard: Shard
    tried: list[int]
    cause: DdpmError


@dataclass
class ShardQueue:
    """Hands out shards and takes note of the outcome.

    A shard that failed for a reason of its own goes to another worker if there is one, and is given up after
    `ATTEMPTS` of them. Shards that were merely lost with their worker are handed out again without counting.

    Args:
        missing: the shards to sample, in the order in which to begin them.
    """

    missing: Iterable[Shard]
    failed: dict[Shard, DdpmError] = field(default_factory=dict)
    _todo: deque[Shard] = field(default_factory=deque)
    _troubled: deque[_Troubled] = field(default_factory=deque)
    _out: dict[Shard, _Troubled | None] = field(default_factory=dict)
    _stored: int = 0

    def __post_init__(self) -> None:
        self._todo = deque(self.missing)

    @property
    def open(self) -> int:
        """Shards whose outcome is not known yet."""
        return len(self._todo) + len(self._troubled) + len(self._out)

    @property
    def hopeless(self) -> bool:
        """Whether nothing has come of this run and several shards in a row have been given up."""
        return not self._stored and len(self.failed) >= HOPELESS

    def take(self, worker: int, workers: Set[int]) -> Shard | None:
        """The next shard for one of the workers, or None if there is none for it."""
        for index, troubled in enumerate(self._troubled):
            if worker not in troubled.tried or workers <= set(troubled.tried):
                del self._troubled[index]
                self._out[troubled.shard] = troubled
                return troubled.shard
        if not self._todo:
            return None
        shard = self._todo.popleft()
        self._out[shard] = None
        return shard

    def stored(self, shard: Shard) -> None:
        """The shard is done."""
        del self._out[shard]
        self._stored += 1

    def lost(self, shard: Shard) -> None:
        """The shard came back without an outcome, through no fault of its own."""
        troubled = self._out.pop(shard)
        if troubled is None:
            self._todo.appendleft(shard)
        else:
            self._troubled.appendleft(troubled)

    def failure(self, shard: Shard, worker: int, cause: DdpmError) -> bool:
        """The shard failed on this worker. Returns whether it is given up.

        It fails for its first cause. That a worker is gone is none as long as there is another: Ray often knows
        only at the next death what the first one was of.
        """
        troubled = self._out.pop(shard) or _Troubled(shard, [], cause)
        troubled.tried.append(worker)
        if isinstance(troubled.cause, WorkerLost):
            troubled.cause = cause
        if len(troubled.tried) >= ATTEMPTS:
            self.failed[shard] = troubled.cause
            return True
        self._troubled.append(troubled)
        return False


def ranges(shards: Iterable[Shard], most: int = 5) -> str:
    """Sample ranges of shards in words: neighbours joined, at most `most` of them."""
    joined: list[tuple[int, int]] = []
    for shard in sorted(shards, key=lambda shard: shard.first):
        if joined and joined[-1][1] + 1 == shard.first:
            joined[-1] = (joined[-1][0], shard.last)
        else:
            joined.append((shard.first, shard.last))
    words = [f"{first} to {last}" for first, last in joined[:most]]
    if len(joined) > most:
        words.append(f"{len(joined) - most} ranges more")
    return ", ".join(words)
