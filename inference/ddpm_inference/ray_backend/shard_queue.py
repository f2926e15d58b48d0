"""The queue of shards of one run: which shard goes to which worker next, and the outcome of each. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field

from ddpm_inference.errors import DdpmError, WorkerLost
from ddpm_inference.job import Shard

MAX_ATTEMPTS = 3
MAX_FAILURES_WITHOUT_SUCCESS = 4


@dataclass
class _Retry:
    """A shard that failed at least once.

    Attributes:
        tried: numbers of the workers it failed on, one for each attempt.
        cause: the error to report if it fails permanently.
    """

    shard: Shard
    tried: list[int]
    cause: DdpmError

    def may_run_on(self, worker: int, workers: Set[int]) -> bool:
        """Returns whether the worker is new to the shard, or every worker has failed on it."""
        return worker not in self.tried or workers <= set(self.tried)


@dataclass
class ShardQueue:
    """Hands out shards and records their outcome.

    A shard that failed is retried on another worker if there is one, and fails permanently after `MAX_ATTEMPTS`
    attempts. The death of a worker is an attempt of the shard that it was sampling. A shard that was queued behind that
    one is handed out again without counting an attempt. Nor does
    the first time that a shard takes too long count as one.

    Args:
        missing: the shards to sample, in the order in which to begin them.

    Attributes:
        failed: the shards that failed permanently, with the cause of each.
    """

    missing: Iterable[Shard]
    failed: dict[Shard, DdpmError] = field(default_factory=dict)
    _pending: deque[Shard] = field(default_factory=deque)
    _retries: deque[_Retry] = field(default_factory=deque)
    _in_flight: dict[Shard, _Retry | None] = field(default_factory=dict)
    _slow: set[Shard] = field(default_factory=set)
    _stored: int = 0

    def __post_init__(self) -> None:
        self._pending = deque(self.missing)

    @property
    def unfinished(self) -> int:
        """The number of shards that are neither stored nor failed permanently."""
        return len(self._pending) + len(self._retries) + len(self._in_flight)

    @property
    def is_hopeless(self) -> bool:
        """Whether no shard was stored and several have failed permanently, so that the run should end."""
        return not self._stored and len(self.failed) >= MAX_FAILURES_WITHOUT_SUCCESS

    def assign(self, load: Mapping[int, int], workers: Set[int], depth: int) -> Iterator[tuple[int, Shard]]:
        """Yields (worker, shard) until each worker has `depth` shards in flight, the idle ones first.

        Args:
            load: worker -> its shards in flight, for every worker that is ready.
            workers: all workers that a retried shard may wait for, see `take`.
        """
        for level in range(depth):
            for worker, in_flight in load.items():
                if in_flight <= level and (shard := self.take(worker, workers)) is not None:
                    yield worker, shard

    def take(self, worker: int, workers: Set[int]) -> Shard | None:
        """Returns the next shard for a worker, or None if there is none for it.

        Args:
            workers: those that a failed shard may go to; it returns to one that it failed on only if it has failed on
                every one of them.
        """
        for index, retry in enumerate(self._retries):
            if retry.may_run_on(worker, workers):
                del self._retries[index]
                self._in_flight[retry.shard] = retry
                return retry.shard
        if not self._pending:
            return None
        shard = self._pending.popleft()
        self._in_flight[shard] = None
        return shard

    def may_take(self, shard: Shard, worker: int, workers: Set[int]) -> bool:
        """Returns whether a shard in flight may move to that worker; `workers` as in `take`."""
        retry = self._in_flight[shard]
        return retry is None or retry.may_run_on(worker, workers)

    def mark_stored(self, shard: Shard) -> None:
        """Records that a shard in flight is stored."""
        del self._in_flight[shard]
        self._stored += 1

    def requeue(self, shard: Shard) -> None:
        """Puts back a shard that was queued on a worker that died, without counting an attempt."""
        retry = self._in_flight.pop(shard)
        if retry is None:
            self._pending.appendleft(shard)
        else:
            self._retries.appendleft(retry)

    def mark_slow(self, shard: Shard) -> bool:
        """Records that a shard took too long and was taken from its worker.

        Returns:
            Whether it is handed out again without an attempt, as it is the first time; else call `mark_failed`.
        """
        if shard in self._slow:
            return False
        self._slow.add(shard)
        self.requeue(shard)
        return True

    def mark_failed(self, shard: Shard, worker: int, cause: DdpmError) -> bool:
        """Records that a shard failed on a worker. Returns whether it failed permanently.

        The cause of the first attempt is kept, unless it is WorkerLost: Ray often reports the true cause only at the
        second death.
        """
        retry = self._in_flight.pop(shard) or _Retry(shard, [], cause)
        retry.tried.append(worker)
        if isinstance(retry.cause, WorkerLost):
            retry.cause = cause
        if len(retry.tried) >= MAX_ATTEMPTS:
            self.failed[shard] = retry.cause
            return True
        self._retries.append(retry)
        return False


def format_ranges(shards: Iterable[Shard], max_ranges: int = 5) -> str:
    """Returns the sample ranges of shards as text, adjacent ones joined: ``0 to 31, 64 to 95, 8 more ranges``."""
    joined: list[tuple[int, int]] = []
    for shard in sorted(shards, key=lambda shard: shard.first):
        if joined and joined[-1][1] + 1 == shard.first:
            joined[-1] = (joined[-1][0], shard.last)
        else:
            joined.append((shard.first, shard.last))
    texts = [f"{first} to {last}" for first, last in joined[:max_ranges]]
    if len(joined) > max_ranges:
        texts.append(f"{len(joined) - max_ranges} more ranges")
    return ", ".join(texts)
