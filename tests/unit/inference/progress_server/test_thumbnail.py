"""The thumbnail of a run: which samples it shows, its size, and when it is rendered again."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_inference.image_grid import GAP_GREY, sheet
from ddpm_inference.job import Identity, Shard, shards_of
from ddpm_inference.progress_server import thumbnail as thumbnail_module
from ddpm_inference.progress_server.thumbnail import MAX_PNG_BYTES, Thumbnail
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples
from tests.support.storing import an_identity

IDENTITY = an_identity()
ANY_AGE = 1e9


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def bright(shard: Shard, identity: Identity) -> Samples:
    """Returns samples of one grey each: 2 i for sample i."""
    return np.full((shard.size, *identity.model.image_shape), 0, np.float32) + (
        np.arange(shard.first, shard.last + 1, dtype=np.float32)[:, None, None, None] * np.float32(2 / 255)
    )


def write_bright(store: Store, *shards: Shard) -> list[ShardRecord]:
    return [store.write_shard(shard, bright(shard, IDENTITY), IDENTITY.fingerprint) for shard in shards]


def greys(png: bytes | None) -> list[int]:
    """Returns the grey of every cell that shows a sample, in reading order."""
    assert png is not None
    pixels = np.asarray(Image.open(BytesIO(png)))
    return [int(value) for value in pixels[1::5, 1::5].ravel() if value != GAP_GREY]


def test_there_is_no_thumbnail_until_a_shard_is_stored(store: Store) -> None:
    thumbnail = Thumbnail()
    assert thumbnail.png(ANY_AGE) is None
    thumbnail.add(store, [])
    assert thumbnail.png(ANY_AGE) is None
    thumbnail.add(store, write_bright(store, *shards_of(8, 8)))
    assert len(greys(thumbnail.png(ANY_AGE))) == 8


def test_samples_are_in_order_whichever_shard_came_first(store: Store) -> None:
    thumbnail = Thumbnail()
    first, second, third = shards_of(24, 8)
    thumbnail.add(store, write_bright(store, third))
    assert greys(thumbnail.png(0.0)) == [2 * i for i in range(16, 24)]
    thumbnail.add(store, write_bright(store, first))
    assert greys(thumbnail.png(0.0)) == [2 * i for i in (*range(8), *range(16, 24))]
    thumbnail.add(store, write_bright(store, first, second))
    assert greys(thumbnail.png(0.0)) == [2 * i for i in range(24)]


def test_only_the_first_hundred_samples_are_read(store: Store) -> None:
    thumbnail = Thumbnail()
    records = write_bright(store, *list(shards_of(128, 8))[::-1])
    thumbnail.add(store, records)
    store.backend.remove(f"shards/{record.name}" for record in records if record.first >= 104)
    expected = sheet(np.concatenate([bright(shard, IDENTITY) for shard in shards_of(100, 8)]))
    png = thumbnail.png(0.0)
    assert png is not None
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png))), np.asarray(expected))


def test_a_recent_render_is_reused(store: Store) -> None:
    thumbnail = Thumbnail()
    first, second = shards_of(16, 8)
    thumbnail.add(store, write_bright(store, first))
    before = thumbnail.png(ANY_AGE)
    thumbnail.add(store, write_bright(store, second))
    assert thumbnail.png(ANY_AGE) == before
    assert len(greys(thumbnail.png(0.0))) == 16


def test_without_new_shards_nothing_is_read_again(store: Store) -> None:
    thumbnail = Thumbnail()
    records = write_bright(store, *shards_of(8, 8))
    thumbnail.add(store, records)
    before = thumbnail.png(0.0)
    store.backend.remove([f"shards/{records[0].name}"])
    thumbnail.add(store, records)
    assert thumbnail.png(0.0) == before


def test_a_damaged_shard_is_read_again_at_the_next_request(store: Store) -> None:
    thumbnail = Thumbnail()
    records = write_bright(store, *shards_of(8, 8))
    thumbnail.add(store, records)
    path = f"shards/{records[0].name}"
    intact = store.backend.read(path, 2**20)
    assert intact is not None
    store.backend.write(path, b"not a shard")
    assert thumbnail.png(0.0) is None
    store.backend.write(path, intact)
    assert len(greys(thumbnail.png(0.0))) == 8


def test_shards_above_the_size_limit_are_not_read(store: Store) -> None:
    thumbnail = Thumbnail()
    [record] = write_bright(store, *shards_of(8, 8))
    thumbnail.add(store, [record.model_copy(update={"bytes": 2**30})])
    assert thumbnail.png(0.0) is None


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (1, 28), (1, 256), (3, 33), (3, 64), (4, 28)])
def test_noise_of_any_shape_stays_within_the_byte_limit(store: Store, channels: int, size: int) -> None:
    thumbnail, rng = Thumbnail(), np.random.default_rng(0)
    for shard in shards_of(100, 20):
        samples = rng.random((shard.size, channels, size, size), np.float32)
        thumbnail.add(store, [store.write_shard(shard, samples, IDENTITY.fingerprint)])
    png = thumbnail.png(0.0)
    assert png is not None
    assert len(png) <= MAX_PNG_BYTES
    width, height = Image.open(BytesIO(png)).size
    assert width == height
    assert width >= 3 * min(size, 17), "fewer than 3 x 3 samples"


def test_a_second_request_gives_up_on_a_slow_render(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnail_module, "LOCK_TIMEOUT", 0.05)
    thumbnail, reading, resume = Thumbnail(), threading.Event(), threading.Event()
    thumbnail.add(store, write_bright(store, *shards_of(8, 8)))
    read_shard = Store.read_shard

    def slow(store: Store, record: ShardRecord) -> Samples:
        reading.set()
        assert resume.wait(60)
        return read_shard(store, record)

    monkeypatch.setattr(Store, "read_shard", slow)
    first = threading.Thread(target=thumbnail.png, args=(0.0,))
    first.start()
    try:
        assert reading.wait(60)
        assert thumbnail.png(0.0) is None
    finally:
        resume.set()
        first.join()
    assert len(greys(thumbnail.png(0.0))) == 8
