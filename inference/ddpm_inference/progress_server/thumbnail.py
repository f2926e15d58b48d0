"""The first samples of a run that are stored so far, as a picture small enough for a status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from threading import Lock
from typing import NamedTuple

import numpy as np

from ddpm_inference.errors import StorageFailed
from ddpm_inference.image_grid import MAX_IMAGES, reduced, thumbnail
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples

MOST_BYTES = 48 * 1024
LARGEST_SHARD = 32 * 2**20  # reading one takes several times its length of memory, which the run may need
BUSY_SECONDS = 2.0


class Stored(NamedTuple):
    """The stored shards of the first samples, in order: enough for a picture, and no more of them."""

    store: Store
    records: Sequence[ShardRecord]


class Picture(NamedTuple):
    """What was made of them, at what time of the monotonic clock; no png if it could not be made."""

    of: Stored
    time: float
    png: bytes | None


class Thumbnail:
    """Shards are added by the thread that runs the job, which never waits here; others ask for the picture."""

    def __init__(self) -> None:
        self._stored: Stored | None = None
        self._picture: Picture | None = None
        self._painting = Lock()

    def add(self, store: Store, records: Iterable[ShardRecord]) -> None:
        """Says that shards are stored, in any order; one that was added before may come again."""
        former = self._stored.records if self._stored else ()
        by_first = {record.first: record for record in (*former, *records)}
        if by_first:
            self._stored = Stored(store, nsmallest(MAX_IMAGES, by_first.values(), key=lambda record: record.first))

    def png(self, oldest: float) -> bytes | None:
        """The picture, as PNG of at most `MOST_BYTES`; None if nothing is stored, or it cannot be made just now.

        Args:
            oldest: a picture of fewer samples than there are now will do if it is no older, in seconds.
        """
        stored = self._stored
        if stored is None or not self._painting.acquire(timeout=BUSY_SECONDS):
            return None
        try:
            there, now = self._picture, time.monotonic()
            stale = there is None or there.png is None or there.of != stored
            if there is None or (stale and now >= there.time + oldest):
                there = self._picture = Picture(stored, now, _painted(stored))
            return there.png
        finally:
            self._painting.release()


def _painted(stored: Stored) -> bytes | None:
    try:
        samples = _first_samples(stored)
        return thumbnail(samples, MOST_BYTES) if samples is not None else None
    except (StorageFailed, MemoryError):
        # Whether the run itself can go on like this, it finds out and tells by itself.
        return None


def _first_samples(stored: Stored) -> Samples | None:
    """Up to `MOST` of them, reduced; memory holds one shard. None if they lie in shards too large to read here."""
    found: list[Samples] = []
    for record in stored.records:
        room = MAX_IMAGES - sum(map(len, found))
        if not room or record.bytes > LARGEST_SHARD:
            break
        found.append(reduced(stored.store.read_shard(record)[:room]))
    return np.concatenate(found) if found else None
