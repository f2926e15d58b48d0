"""Stores shards on threads of its own, so that the loop that gives workers their next shards never waits for a disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ddpm_inference.store.manifest import ShardRecord

THREADS = 2
MAX_PENDING = 4
"""Shards in memory that are not stored yet. Beyond it, `put` waits: the disk is slower than the workers."""


class ShardWriter:
    """A queue of shards to store. Call its methods in one thread; leaving its block waits for the shards in it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "shard-writer")
        self._pending: deque[Future[ShardRecord]] = deque()

    def put(self, write: Callable[[], ShardRecord]) -> list[ShardRecord]:
        """Queues a shard; returns the records of those that are stored since the last call.

        Args:
            write: stores the shard. Called in another thread.

        Raises:
            StorageFailed: if an earlier shard could not be stored.
        """
        self._pending.append(self._pool.submit(write))
        stored = []
        while self._pending and (len(self._pending) > MAX_PENDING or self._pending[0].done()):
            stored.append(self._pending.popleft().result())
        return stored

    def drain(self) -> list[ShardRecord]:
        """Waits until every shard is stored; returns the records that `put` has not returned.

        Raises:
            StorageFailed: if one could not be stored.
        """
        stored = []
        while self._pending:
            stored.append(self._pending.popleft().result())
        return stored

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()
