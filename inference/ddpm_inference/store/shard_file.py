"""The bytes of a shard's file: an uncompressed ``.npz`` that says what it holds and can be checked alone.

Equal samples make equal bytes, on any machine and day, so that the sha256 of a shard can be compared between
runs. Compression would break that, since its bytes are the zlib's at hand, and gains little: deflate takes a third
off a batch of 64 digits with a little noise (201 to 129 kB), and 6 ms instead of half a millisecond.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddpm_inference.job import Shard

Samples = npt.NDArray[np.float32]

DTYPE = np.dtype("<f4")
_MOST_BESIDE_SAMPLES = 4096


class Damaged(Exception):
    """The bytes are not a whole shard file of this range. The message says why."""


class Contents(NamedTuple):
    """What a shard file holds: samples, float32 (n, C, H, W) in [0, 1], and the fingerprint of their job."""

    samples: Samples
    fingerprint: str


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def most_bytes(batch_size: int, image_shape: tuple[int, int, int]) -> int:
    """No shard file of such images, (C, H, W) each, is longer."""
    return batch_size * math.prod(image_shape) * DTYPE.itemsize + _MOST_BESIDE_SAMPLES


def check_samples(shard: Shard, samples: Samples) -> None:
    """Holds the samples of a shard to their contract: float32 (shard.size, C, H, W), all in [0, 1].

    Raises:
        ValueError: naming the shard and what is wrong. NaN is outside of [0, 1].
    """
    if samples.dtype != DTYPE or samples.ndim != 4 or len(samples) != shard.size:
        raise ValueError(
            f"samples {shard.first} to {shard.last} must be float32 ({shard.size}, C, H, W), "
            f"but are {samples.dtype} {samples.shape}"
        )
    if not (samples.min() >= 0 and samples.max() <= 1):
        raise ValueError(
            f"samples {shard.first} to {shard.last} must lie in [0, 1], "
            f"but reach from {samples.min()} to {samples.max()}"
        )


def encode(shard: Shard, samples: Samples, fingerprint: str) -> bytes:
    """The file of a shard: ``samples``, ``range`` (int64: first, last) and ``fingerprint`` (a string).

    Readable by ``np.load(file)`` without pickle.
    """
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        fingerprint=np.array(fingerprint),
        range=np.array([shard.first, shard.last], dtype="<i8"),
        samples=np.ascontiguousarray(samples, dtype=DTYPE),
    )
    return buffer.getvalue()


def decode(data: bytes, shard: Shard) -> Contents:
    """Reads a shard's file and checks every byte of it.

    Raises:
        Damaged: if the bytes are anything but what `encode` makes of these samples and this range.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Whole members are read first: that checks their CRC before a header of theirs is believed.
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise Damaged("its members are said to be larger than the file")
            fingerprint, samples = (
                np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
                for name in ("fingerprint", "samples")
            )
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Damaged(f"it is not a whole .npz file ({error})") from error
    try:
        check_samples(shard, samples)
    except ValueError as error:
        raise Damaged(str(error)) from error
    contents = Contents(samples, str(fingerprint))
    if encode(shard, *contents) != data:
        raise Damaged("its bytes are not those of its samples")
    return contents
