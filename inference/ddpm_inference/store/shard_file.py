"""Format of a shard's file: an uncompressed, self-describing ``.npz`` that can be verified on its own.

Equal samples give equal bytes, on any machine and day, so the sha256 of a shard can be compared between runs.
Compression would break this, because its bytes depend on the version of zlib, and gains little: deflate shrinks a
batch of 64 digits with some noise by a third (201 to 129 kB), in 6 ms instead of half a millisecond.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import Hardware, Shard

Samples = npt.NDArray[np.float32]

DTYPE = np.dtype("<f4")
_MAX_OVERHEAD_BYTES = 4096
_HARDWARE = "hardware"


class Damaged(Exception):
    """The bytes are not an intact file of this shard. The message says why."""


class ShardContents(NamedTuple):
    """Contents of a shard file.

    Attributes:
        samples: float32 (n, C, H, W) in [0, 1].
        fingerprint: of their job.
        hardware: that drew them, if it is not that of the job's identity.
    """

    samples: Samples
    fingerprint: str
    hardware: Hardware | None = None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def max_file_bytes(batch_size: int, image_shape: tuple[int, int, int]) -> int:
    """Returns the largest size of a shard file of images of shape (C, H, W)."""
    return batch_size * math.prod(image_shape) * DTYPE.itemsize + _MAX_OVERHEAD_BYTES


def file_bytes(size: int, image_shape: tuple[int, int, int], fingerprint: str) -> int:
    """Returns the size of the file of a shard of `size` samples of shape (C, H, W); it does not depend on them."""
    samples = np.zeros((size, *image_shape), DTYPE)
    return len(encode(Shard(first=0, last=size - 1), samples, fingerprint))


def check_samples(shard: Shard, samples: Samples) -> None:
    """Checks the samples of a shard: float32 (shard.size, C, H, W), all in [0, 1].

    Raises:
        ValueError: naming the shard and the problem. NaN counts as outside [0, 1].
    """
    if samples.dtype != DTYPE or samples.ndim != 4 or len(samples) != shard.size:
        raise ValueError(
            f"samples {shard.first} to {shard.last} must be float32 ({shard.size}, C, H, W), "
            f"but are {samples.dtype} {samples.shape}"
        )
    if not (samples.min() >= 0 and samples.max() <= 1):
        raise ValueError(
            f"samples {shard.first} to {shard.last} must be in [0, 1], "
            f"but range from {samples.min()} to {samples.max()}"
        )


def encode(shard: Shard, samples: Samples, fingerprint: str, hardware: Hardware | None = None) -> bytes:
    """Encodes a shard as a file of ``samples``, ``range`` (int64: first, last) and ``fingerprint`` (a string).

    If other hardware than the identity's drew it, the file has a fourth member, ``hardware`` (JSON, a string).
    ``np.load(file)`` reads it without pickle.
    """
    extra = {} if hardware is None else {_HARDWARE: np.array(hardware.model_dump_json())}
    buffer = io.BytesIO()
    np.savez(
        buffer,
        allow_pickle=False,
        fingerprint=np.array(fingerprint),
        range=np.array([shard.first, shard.last], dtype="<i8"),
        samples=np.ascontiguousarray(samples, dtype=DTYPE),
        **extra,
    )
    return buffer.getvalue()


def decode(data: bytes, shard: Shard) -> ShardContents:
    """Decodes a shard's file and checks every byte of it.

    Raises:
        Damaged: if the bytes are not those that `encode` returns for these samples and this range.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # Members are read completely, which checks their CRC before their headers are parsed.
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise Damaged("its members claim to be larger than the file")
            fingerprint, samples = (
                np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
                for name in ("fingerprint", "samples")
            )
            hardware = None
            if f"{_HARDWARE}.npy" in archive.namelist():
                text = np.load(io.BytesIO(archive.read(f"{_HARDWARE}.npy")), allow_pickle=False)
                hardware = Hardware.parse(str(text), "its hardware")
    except InvalidSpec as error:
        raise Damaged(error.message) from error
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Damaged(f"it is not an intact .npz file ({error})") from error
    try:
        check_samples(shard, samples)
    except ValueError as error:
        raise Damaged(str(error)) from error
    contents = ShardContents(samples, str(fingerprint), hardware)
    if encode(shard, *contents) != data:
        raise Damaged("its bytes do not match its samples")
    return contents
