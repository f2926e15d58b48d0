"""The picture of what is stored so far: of which samples, how large, how often made."""

from __future__ import annotations

import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_inference.image_grid import GAP_GREY, sheet
from ddpm_inference.job import Identity, Shard, shards_of
from ddpm_inference.progress_server.thumbnail import MOST_BYTES, Thumbnail
from ddpm_inference.store import ShardRecord, Store
from ddpm_inference.store.shard_file import Samples
from tests.support.storing import an_identity

IDENTITY = an_identity()
FOR_EVER = 1e9


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def bright(shard: Shard, identity: Identity) -> Samples:
    """Sample i in the grey 2 i."""
    return np.full((shard.size, *identity.model.image_shape), 0, np.float32) + (
        np.arange(shard.first, shard.last + 1, dtype=np.float32)[:, None, None, None] * np.float32(2 / 255)
    )


def stored(store: Store, *shards: Shard) -> list[ShardRecord]:
    return [store.write_shard(shard, bright(shard, IDENTITY), IDENTITY.fingerprint) for shard in shards]


def greys(png: bytes | None) -> list[int]:
    """The brightness of the cells that are not empty, in reading order."""
    assert png is not None
    pixels = np.asarray(Image.open(BytesIO(png)))
    return [int(value) for value in pixels[1::5, 1::5].ravel() if value != GAP_GREY]


def test_there_is_no_picture_of_nothing_and_one_as_soon_as_there_is_something(store: Store) -> None:
    gallery = Thumbnail()
    assert gallery.png(FOR_EVER) is None
    gallery.add(store, [])
    assert gallery.png(FOR_EVER) is None
    gallery.add(store, stored(store, *shards_of(8, 8)))
    assert len(greys(gallery.png(FOR_EVER))) == 8


def test_it_shows_what_is_stored_so_far_in_order_whatever_came_first(store: Store) -> None:
    gallery = Thumbnail()
    first, second, third = shards_of(24, 8)
    gallery.add(store, stored(store, third))
    assert greys(gallery.png(0.0)) == [2 * i for i in range(16, 24)]
    gallery.add(store, stored(store, first))
    assert greys(gallery.png(0.0)) == [2 * i for i in (*range(8), *range(16, 24))]
    gallery.add(store, stored(store, first, second))
    assert greys(gallery.png(0.0)) == [2 * i for i in range(24)]


def test_it_ends_with_the_first_hundred_and_reads_no_other_shard(store: Store) -> None:
    gallery = Thumbnail()
    records = stored(store, *list(shards_of(128, 8))[::-1])
    gallery.add(store, records)
    store.place.remove(f"shards/{record.name}" for record in records if record.first >= 104)
    expected = sheet(np.concatenate([bright(shard, IDENTITY) for shard in shards_of(100, 8)]))
    png = gallery.png(0.0)
    assert png is not None
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png))), np.asarray(expected))


def test_it_is_made_anew_only_for_one_who_wants_it_fresher(store: Store) -> None:
    gallery = Thumbnail()
    first, second = shards_of(16, 8)
    gallery.add(store, stored(store, first))
    before = gallery.png(FOR_EVER)
    gallery.add(store, stored(store, second))
    assert gallery.png(FOR_EVER) == before
    assert len(greys(gallery.png(0.0))) == 16


def test_without_new_samples_nothing_is_read_again(store: Store) -> None:
    gallery = Thumbnail()
    records = stored(store, *shards_of(8, 8))
    gallery.add(store, records)
    before = gallery.png(0.0)
    store.place.remove([f"shards/{records[0].name}"])
    gallery.add(store, records)
    assert gallery.png(0.0) == before


@pytest.mark.parametrize("harm", [b"", b"not a shard"])
def test_a_shard_that_cannot_be_read_is_no_picture_until_it_can(store: Store, harm: bytes) -> None:
    gallery = Thumbnail()
    records = stored(store, *shards_of(8, 8))
    gallery.add(store, records)
    path = f"shards/{records[0].name}"
    whole = store.place.read(path, 2**20)
    assert whole is not None
    store.place.write(path, harm)
    assert gallery.png(0.0) is None
    store.place.write(path, whole)
    assert len(greys(gallery.png(0.0))) == 8


def test_shards_too_large_to_read_beside_a_run_are_left_alone(store: Store) -> None:
    gallery = Thumbnail()
    [record] = stored(store, *shards_of(8, 8))
    gallery.add(store, [record.model_copy(update={"bytes": 2**30})])
    assert gallery.png(0.0) is None


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (1, 28), (1, 256), (3, 32), (3, 33), (3, 64), (4, 28)])
def test_noise_of_any_shape_stays_within_the_bytes_and_shows_several_samples(
    store: Store, channels: int, size: int
) -> None:
    gallery, noise = Thumbnail(), np.random.default_rng(0)
    for shard in shards_of(100, 20):
        samples = noise.random((shard.size, channels, size, size), np.float32)
        gallery.add(store, [store.write_shard(shard, samples, IDENTITY.fingerprint)])
    png = gallery.png(0.0)
    assert png is not None
    assert len(png) <= MOST_BYTES
    width, height = Image.open(BytesIO(png)).size
    assert width == height
    assert width >= 3 * min(size, 17)


def test_who_asks_while_it_is_made_does_not_wait_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, reading, go_on = Thumbnail(), threading.Event(), threading.Event()
    gallery.add(store, stored(store, *shards_of(8, 8)))
    read_shard = Store.read_shard

    def slow(store: Store, record: ShardRecord) -> Samples:
        reading.set()
        assert go_on.wait(60)
        return read_shard(store, record)

    monkeypatch.setattr(Store, "read_shard", slow)
    first = threading.Thread(target=gallery.png, args=(0.0,))
    first.start()
    try:
        assert reading.wait(60)
        assert gallery.png(0.0) is None
    finally:
        go_on.set()
        first.join()
    assert len(greys(gallery.png(0.0))) == 8
