"""Consistency of the manifest, and the selection of shards for N samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ddpm_inference.job import Shard, shards_of
from ddpm_inference.store import FileRecord, Manifest, ShardRecord, select
from ddpm_inference.store.manifest import superseded
from tests.support.storing import an_identity

BATCH = 8
OURS = an_identity(batch_size=BATCH)

ranges = st.builds(lambda first, size: (first, first + size - 1), st.integers(0, 80), st.integers(1, 16))
grid_ranges = st.builds(
    lambda index, size: (index * BATCH, index * BATCH + size - 1), st.integers(0, 10), st.integers(1, BATCH)
)
range_lists = st.lists(st.one_of(ranges, grid_ranges), max_size=30)
counts = st.integers(1, 90)


def record(first: int, last: int) -> ShardRecord:
    return ShardRecord(first=first, last=last, bytes=1, sha256=f"{first:032x}{last:032x}")


def manifest(n_samples: int) -> Manifest:
    shards = [record(shard.first, shard.last) for shard in shards_of(n_samples, BATCH)]
    return Manifest.of(OURS, n_samples, shards, {})


@given(range_lists, counts)
def test_a_selection_covers_every_sample_once(pairs: list[tuple[int, int]], n: int) -> None:
    records = [record(*pair) for pair in pairs]
    usable, missing = select(records, n, BATCH)
    chosen = sorted([*usable, *missing], key=lambda shard: shard.first)
    assert [i for shard in chosen for i in range(shard.first, shard.last + 1)] == list(range(n))
    assert set(usable) <= set(records)
    assert all((shard.first, shard.last) not in pairs for shard in missing)
    assert usable == sorted(usable, key=lambda shard: shard.first)
    assert missing == sorted(missing, key=lambda shard: shard.first)


@given(range_lists, counts)
def test_a_selection_makes_a_valid_manifest(pairs: list[tuple[int, int]], n: int) -> None:
    usable, missing = select([record(*pair) for pair in pairs], n, BATCH)
    sampled = [record(shard.first, shard.last) for shard in missing]
    shards = sorted(usable + sampled, key=lambda shard: shard.first)
    assert Manifest.of(OURS, n, shards, {}).n_samples == n


@given(range_lists, counts)
def test_only_redundant_shards_are_superseded(pairs: list[tuple[int, int]], n: int) -> None:
    complete = manifest(n)
    gone = superseded([Shard(first=first, last=last) for first, last in pairs], complete)
    named = {(shard.first, shard.last) for shard in complete.shards}
    assert not any((shard.first, shard.last) in named or shard.last >= n for shard in gone)


def test_a_longer_shard_supersedes_a_short_one() -> None:
    short = Shard(first=16, last=19)
    assert superseded([short, Shard(first=16, last=23), Shard(first=24, last=31)], manifest(24)) == [short]


@given(counts, st.data())
def test_a_manifest_with_wrong_shards_is_invalid(n: int, data: st.DataObject) -> None:
    shards = list(manifest(n).shards)
    at = data.draw(st.integers(0, len(shards) - 1))
    damages = ["missing", "doubled", "lengthened", "moved"]
    damage = data.draw(st.sampled_from(damages if at == len(shards) - 1 else [*damages, "overlapping"]))
    if damage == "missing":
        del shards[at]
    elif damage == "doubled":
        shards.insert(at, shards[at])
    elif damage == "lengthened":
        shards[at] = record(shards[at].first, shards[at].last + 1)
    elif damage == "overlapping":
        # The number of samples is right, but one is listed twice and the last is missing.
        shards[at] = record(shards[at].first, shards[at].last + 1)
        shards[-1] = record(shards[-1].first, max(shards[-1].last - 1, shards[-1].first))
    else:
        shards[at] = record(shards[at].first + 1, shards[at].last + 1)
    with pytest.raises(ValidationError):
        Manifest.of(OURS, n, shards, {})


def test_a_manifest_survives_json() -> None:
    complete = manifest(20).model_copy(update={"files": {"samples.npy": FileRecord(bytes=3, sha256="a" * 64)}})
    assert Manifest.parse(complete.model_dump_json(), "the manifest") == complete


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"fingerprint": "0" * 64}, {"n_samples": 21}, {"shape": (1, 4, 5)}, {"dtype": "float64"}],
    ids=lambda change: next(iter(change)),
)
def test_an_inconsistent_manifest_is_invalid(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Manifest.model_validate(manifest(20).model_dump() | change)
