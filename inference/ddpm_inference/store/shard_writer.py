"""Stores shards on threads of its own, so that the loop that gives workers their next shards never waits for a disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ddpm_inference.store.manifest import ShardRecord

THREADS = 2
MAX_PENDING = 4
"""Shards in memory that are not stored yet. Beyond it, `put` waits: the disk is slower than the workers."""


class ShardWriter:
    """A queue of shards to store. Call its methods in one thread; leaving its block waits for the shards in it.

    Args:
        record: called with the records of shards that are stored, in that thread.
    """

    def __init__(self, record: Callable[[Sequence[ShardRecord]], None]) -> None:
        self._record = record
        self._pool = ThreadPoolExecutor(THREADS, "shard-writer")
        self._pending: deque[Future[ShardRecord]] = deque()

    def put(self, write: Callable[[], ShardRecord]) -> None:
        """Queues a shard; waits while more than `MAX_PENDING` are in the queue.

        Args:
            write: stores the shard. Called in another thread.

        Raises:
            StorageFailed: if an earlier shard could not be stored.
        """
        self._pending.append(self._pool.submit(write))
        self._collect(MAX_PENDING)

    def collect(self) -> None:
        """Records the shards that are stored by now, without waiting.

        Raises:
            StorageFailed: if one could not be stored.
        """
        self._collect(len(self._pending))

    def drain(self) -> None:
        """Waits until no shard is in the queue, and records those that are stored.

        Raises:
            StorageFailed: if one could not be stored; the others are recorded.
        """
        self._collect(0)

    def _collect(self, max_pending: int) -> None:
        stored: list[ShardRecord] = []
        failures: list[Exception] = []
        try:
            while self._pending and (len(self._pending) > max_pending or self._pending[0].done()):
                try:
                    stored.append(self._pending[0].result())
                except Exception as error:  # noqa: BLE001 - raised below
                    failures.append(error)
                # Removed only now: a signal may end the wait, and then the next call waits for the same shard.
                self._pending.popleft()
        finally:
            if stored:
                self._record(stored)
        if failures:
            raise failures[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown()
