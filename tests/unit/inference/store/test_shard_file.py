"""Shard files: equal bytes for equal samples, and detection of any damage."""

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


def test_the_bytes_of_a_shard_are_golden() -> None:
    samples = np.linspace(0, 1, 20, dtype=np.float32).reshape(5, 1, 2, 2)
    # A golden value: sha256 of shards are compared between machines, days and library versions.
    assert (
        sha256(encode(SHARD, samples, "f" * 64)) == "c9a0283d672e58e45588711763c5d9d8dc5297c6922f72a7732772e44ba08247"
    )


def test_memory_layout_does_not_change_the_bytes() -> None:
    assert encode(SHARD, np.asfortranarray(SAMPLES), OURS.fingerprint) == FILE
    assert encode(SHARD, SAMPLES[::-1][::-1], OURS.fingerprint) == FILE


def test_an_intact_file_decodes_to_its_samples() -> None:
    samples, fingerprint, hardware = decode(FILE, SHARD)
    np.testing.assert_array_equal(samples, SAMPLES)
    assert (fingerprint, hardware) == (OURS.fingerprint, None)


def test_any_flipped_bit_is_detected() -> None:
    for position in range(len(FILE)):
        damaged = bytearray(FILE)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(Damaged):
            decode(bytes(damaged), SHARD)


def test_a_truncated_or_extended_file_is_detected() -> None:
    for length in range(0, len(FILE), 7):
        with pytest.raises(Damaged):
            decode(FILE[:length], SHARD)
    with pytest.raises(Damaged):
        decode(FILE + b"\0", SHARD)


def test_a_file_of_another_range_is_detected() -> None:
    with pytest.raises(Damaged):
        decode(FILE, Shard(first=16, last=20))
    with pytest.raises(Damaged, match=r"float32 \(4, C, H, W\)"):
        decode(FILE, Shard(first=8, last=11))


def test_samples_out_of_range_are_detected() -> None:
    for value in (-0.1, 1.1, np.nan):
        with pytest.raises(Damaged, match=r"\[0, 1\]"):
            decode(encode(SHARD, np.full_like(SAMPLES, value), OURS.fingerprint), SHARD)


def test_a_zip_bomb_is_not_unpacked() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples.npy", b"\0" * 10**7)
    with pytest.raises(Damaged, match="larger than the file"):
        decode(buffer.getvalue(), SHARD)
