"""Shards of other hardware than the identity's: the file and the manifest say so, and the fingerprint stays."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from ddpm_inference.job import Hardware, Identity, Shard, shards_of
from ddpm_inference.store import Manifest, Store
from ddpm_inference.store.shard_file import Damaged, decode, encode
from tests.support.storing import an_identity, samples_of

FIRST = Hardware(cpu_vendor="GenuineIntel", aten="AVX512", onednn="AVX512_CORE")
OTHER = Hardware(cpu_vendor="AuthenticAMD", aten="AVX2", onednn="AVX2")
OURS = Identity.model_validate({**an_identity(batch_size=4).model_dump(), "hardware": FIRST})
SHARD = Shard(first=4, last=7)


def mixed(tmp_path: Path) -> Store:
    """Returns a store with two whole shards, the second of other hardware."""
    store = Store.open(str(tmp_path))
    store.initialize(OURS, overwrite=False)
    for shard, hardware in zip(shards_of(8, 4), (None, OTHER), strict=True):
        record = store.write_shard(shard, samples_of(shard, OURS), OURS.fingerprint, hardware)
        assert record.hardware == hardware
    return store


def test_the_file_says_which_hardware_drew_it() -> None:
    samples = samples_of(SHARD, OURS)
    data = encode(SHARD, samples, OURS.fingerprint, OTHER)
    assert decode(data, SHARD).hardware == OTHER
    assert np.load(io.BytesIO(data))["hardware"] == OTHER.model_dump_json()
    assert decode(encode(SHARD, samples, OURS.fingerprint), SHARD).hardware is None


def test_a_file_with_invalid_hardware_is_damaged() -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        fingerprint=np.array(OURS.fingerprint),
        range=np.array([4, 7], dtype="<i8"),
        samples=samples_of(SHARD, OURS),
        hardware=np.array('{"aten": 1}'),
    )
    with pytest.raises(Damaged, match="its hardware is not valid"):
        decode(buffer.getvalue(), SHARD)


def test_a_scan_and_the_manifest_keep_it(tmp_path: Path) -> None:
    store = mixed(tmp_path)
    records = store.scan(OURS).records
    assert [record.hardware for record in records] == [None, OTHER]
    store.write_manifest(Manifest.of(OURS, 8, records, {}))
    stored = store.read_manifest()
    assert stored is not None
    assert stored.fingerprint == OURS.fingerprint
    first, second = stored.model_dump(mode="json")["shards"]
    assert "hardware" not in first
    assert second["hardware"] == OTHER.model_dump()


def test_a_stored_shard_keeps_its_own_record(tmp_path: Path) -> None:
    """A late writer on other hardware gets the record of the shard that was stored first."""
    store = mixed(tmp_path)
    for shard, kept in zip(shards_of(8, 4), (None, OTHER), strict=True):
        late = store.write_shard(shard, samples_of(shard, OURS), OURS.fingerprint, None if kept else OTHER)
        assert late.hardware == kept


def test_its_samples_are_counted_as_kept(tmp_path: Path) -> None:
    store = mixed(tmp_path)
    assert store.count_samples(OURS, 8) == 8
    (tmp_path / "shards" / SHARD.name).write_bytes(b"")
    assert store.count_samples(OURS, 8) == 4
