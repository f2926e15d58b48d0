"""A shard's file: equal bytes for equal samples, and no damage that goes unnoticed."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from ddpm_inference.job import Shard
from ddpm_inference.store.shard_file import Damaged, decode, encode, sha256
from tests.support.storing import an_identity, samples_of

OURS = an_identity(img_size=2)
SHARD = Shard(first=8, last=12)
SAMPLES = samples_of(SHARD, OURS)
FILE = encode(SHARD, SAMPLES, OURS.fingerprint)


def test_a_shard_file_can_be_read_by_numpy_without_pickle() -> None:
    with np.load(io.BytesIO(FILE), allow_pickle=False) as file:
        assert sorted(file.files) == ["fingerprint", "range", "samples"]
        assert file["samples"].dtype == np.float32
        np.testing.assert_array_equal(file["samples"], SAMPLES)
        assert str(file["fingerprint"]) == OURS.fingerprint
        assert file["range"].tolist() == [8, 12]


def test_equal_samples_make_equal_bytes_on_any_machine_and_day() -> None:
    samples = np.linspace(0, 1, 20, dtype=np.float32).reshape(5, 1, 2, 2)
    # Written down once: sha256 of shards are compared between machines, days and versions of the libraries.
    assert (
        sha256(encode(SHARD, samples, "f" * 64)) == "c9a0283d672e58e45588711763c5d9d8dc5297c6922f72a7732772e44ba08247"
    )


def test_the_layout_of_the_array_in_memory_does_not_matter() -> None:
    assert encode(SHARD, np.asfortranarray(SAMPLES), OURS.fingerprint) == FILE
    assert encode(SHARD, SAMPLES[::-1][::-1], OURS.fingerprint) == FILE


def test_a_whole_file_gives_back_its_samples() -> None:
    samples, fingerprint = decode(FILE, SHARD)
    np.testing.assert_array_equal(samples, SAMPLES)
    assert fingerprint == OURS.fingerprint


def test_a_changed_bit_anywhere_is_noticed() -> None:
    for position in range(len(FILE)):
        damaged = bytearray(FILE)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Damaged):
            decode(bytes(damaged), SHARD)


def test_a_file_cut_short_or_longer_is_noticed() -> None:
    for length in range(0, len(FILE), 7):
        with pytest.raises(Damaged):
            decode(FILE[:length], SHARD)
    with pytest.raises(Damaged):
        decode(FILE + b"\0", SHARD)


def test_a_file_under_the_name_of_another_range_is_noticed() -> None:
    with pytest.raises(Damaged):
        decode(FILE, Shard(first=16, last=20))
    with pytest.raises(Damaged, match=r"float32 \(4, C, H, W\)"):
        decode(FILE, Shard(first=8, last=11))


def test_samples_outside_of_their_range_are_noticed() -> None:
    for value in (-0.1, 1.1, np.nan):
        with pytest.raises(Damaged, match=r"\[0, 1\]"):
            decode(encode(SHARD, np.full_like(SAMPLES, value), OURS.fingerprint), SHARD)


def test_a_small_file_that_unpacks_to_much_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", b"\0" * 10**7)
    with pytest.raises(Damaged, match="larger than the file"):
        decode(buffer.getvalue(), SHARD)
