"""Shards are stored beside the loop that dispatches them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from ddpm_inference.errors import StorageFailed
from ddpm_inference.store import ShardRecord
from ddpm_inference.store.shard_writer import MAX_PENDING, ShardWriter

DEADLINE = 30.0


def record(index: int) -> ShardRecord:
    return ShardRecord(first=index, last=index, bytes=1, sha256="0" * 64)


def writes(index: int, after: threading.Event | None = None) -> Callable[[], ShardRecord]:
    """A write that ends once an event is set."""

    def write() -> ShardRecord:
        assert after is None or after.wait(DEADLINE)
        return record(index)

    return write


def test_a_slow_disk_does_not_block_the_next_shards() -> None:
    synced = threading.Event()
    with ShardWriter() as writer:
        for index in range(MAX_PENDING):
            assert writer.put(writes(index, synced)) == []
        synced.set()
        assert writer.drain() == [record(index) for index in range(MAX_PENDING)]
        assert writer.drain() == []


def test_only_a_few_shards_wait_in_memory() -> None:
    synced, written = threading.Event(), threading.Event()
    with ShardWriter() as writer:

        def put_all() -> None:
            for index in range(MAX_PENDING + 1):
                writer.put(writes(index, synced))
            written.set()

        thread = threading.Thread(target=put_all)
        thread.start()
        assert not written.is_set()
        synced.set()
        thread.join(DEADLINE)
        assert written.is_set()


def test_a_failed_write_is_raised_by_a_later_call() -> None:
    def fail() -> ShardRecord:
        raise StorageFailed("the disk is full")

    def put_and_drain(writer: ShardWriter) -> None:
        writer.put(fail)
        writer.drain()

    with ShardWriter() as writer, pytest.raises(StorageFailed, match="disk is full"):
        put_and_drain(writer)


def test_leaving_the_block_waits_for_pending_shards() -> None:
    stored: list[int] = []

    def write(index: int) -> ShardRecord:
        stored.append(index)
        return record(index)

    def interrupted() -> None:
        with ShardWriter() as writer:
            for index in range(3):
                writer.put(partial(write, index))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(stored) == [0, 1, 2]
