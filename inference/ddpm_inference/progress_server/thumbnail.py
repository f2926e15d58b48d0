"""Thumbnail of a run: a grid of its first stored samples, small enough for the status of a DDPMSampling."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from heapq import nsmallest
from threading import Lock
from typing import NamedTuple

import numpy as np

from ddpm_inference.errors import StorageFailed
from ddpm_inference.image_grid import MAX_IMAGES, downscaled, thumbnail
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples

MAX_PNG_BYTES = 48 * 1024
MAX_SHARD_BYTES = 32 * 2**20
"""Larger shards are not read: reading one takes several times its size in memory, which the run may need."""
LOCK_TIMEOUT = 2.0


class StoredShards(NamedTuple):
    """The stored shards with the lowest ranges, in order, as many as a grid can need."""

    store: Store
    records: Sequence[ShardRecord]


class RenderedThumbnail(NamedTuple):
    """A render: its shards, its time on the monotonic clock, and the PNG; None if rendering failed."""

    shards: StoredShards
    time: float
    png: bytes | None


class Thumbnail:
    """Collects stored shards from the job's thread, which never waits here, and renders for the server's threads."""

    def __init__(self) -> None:
        self._shards: StoredShards | None = None
        self._rendered: RenderedThumbnail | None = None
        self._rendering = Lock()

    def add(self, store: Store, records: Iterable[ShardRecord]) -> None:
        """Adds stored shards, in any order; a shard may be added again."""
        previous = self._shards.records if self._shards else ()
        by_first = {record.first: record for record in (*previous, *records)}
        if by_first:
            self._shards = StoredShards(
                store, nsmallest(MAX_IMAGES, by_first.values(), key=lambda record: record.first)
            )

    def png(self, max_age: float) -> bytes | None:
        """Returns the thumbnail as a PNG of at most `MAX_PNG_BYTES`, or None if nothing is stored or it cannot be
        rendered at the moment.

        Args:
            max_age: seconds for which a render may lack samples that were stored since.
        """
        shards = self._shards
        if shards is None or not self._rendering.acquire(timeout=LOCK_TIMEOUT):
            return None
        try:
            rendered, now = self._rendered, time.monotonic()
            stale = rendered is None or rendered.png is None or rendered.shards != shards
            if rendered is None or (stale and now >= rendered.time + max_age):
                rendered = self._rendered = RenderedThumbnail(shards, now, _render(shards))
            return rendered.png
        finally:
            self._rendering.release()


def _render(shards: StoredShards) -> bytes | None:
    try:
        samples = _first_samples(shards)
        return thumbnail(samples, MAX_PNG_BYTES) if samples is not None else None
    except (StorageFailed, MemoryError):
        # If this concerns the run as well, the run fails with an error of its own.
        return None


def _first_samples(shards: StoredShards) -> Samples | None:
    """Reads up to `MAX_IMAGES` samples, downscaled, one shard in memory at a time. Returns None if the first shard is
    larger than `MAX_SHARD_BYTES`."""
    samples: list[Samples] = []
    for record in shards.records:
        room = MAX_IMAGES - sum(map(len, samples))
        if not room or record.bytes > MAX_SHARD_BYTES:
            break
        samples.append(downscaled(shards.store.read_shard(record)[:room]))
    return np.concatenate(samples) if samples else None
