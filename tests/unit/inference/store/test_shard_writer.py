"""Shards are stored beside the loop that dispatches them."""

from __future__ import annotations

import threading
import time
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
    synced, stored = threading.Event(), list[ShardRecord]()
    with ShardWriter(stored.extend) as writer:
        for index in range(MAX_PENDING):
            writer.put(writes(index, synced))
        writer.collect()
        assert stored == []
        synced.set()
        writer.drain()
        assert stored == [record(index) for index in range(MAX_PENDING)]
        writer.drain()
        assert len(stored) == MAX_PENDING


def test_a_stored_shard_is_recorded_without_another_one() -> None:
    stored: list[ShardRecord] = []
    with ShardWriter(stored.extend) as writer:
        writer.put(writes(0))
        deadline = time.monotonic() + DEADLINE
        while not stored and time.monotonic() < deadline:
            writer.collect()
    assert stored == [record(0)]


def test_only_a_few_shards_wait_in_memory() -> None:
    synced, written = threading.Event(), threading.Event()
    with ShardWriter(lambda _: None) as writer:

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
        synced = threading.Event()
        writer.put(writes(0, synced))
        writer.put(fail)
        writer.put(writes(1))
        synced.set()
        writer.drain()

    stored: list[ShardRecord] = []
    with ShardWriter(stored.extend) as writer, pytest.raises(StorageFailed, match="disk is full"):
        put_and_drain(writer)
    assert stored == [record(0), record(1)]


def test_leaving_the_block_waits_for_pending_shards() -> None:
    stored: list[int] = []

    def write(index: int) -> ShardRecord:
        stored.append(index)
        return record(index)

    def interrupted() -> None:
        with ShardWriter(lambda _: None) as writer:
            for index in range(3):
                writer.put(partial(write, index))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(stored) == [0, 1, 2]
