"""Writes the bytes of a float32 ``.npy`` file one batch at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator

import numpy as np

from ddpm_inference.store.shard_file import DTYPE, Samples


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Returns the header of a ``.npy`` file (format 1.0, as np.save writes it) of a C-ordered float32 array."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": DTYPE.str, "fortran_order": False, "shape": tuple(int(size) for size in shape)}
    )
    return buffer.getvalue()


def npy_length(shape: tuple[int, ...]) -> int:
    """Returns the size of the whole file in bytes."""
    return len(npy_header(shape)) + DTYPE.itemsize * math.prod(shape)


def npy_chunks(shape: tuple[int, ...], batches: Iterable[Samples]) -> Iterator[bytes]:
    """Yields the file in chunks: its header, then each batch.

    Args:
        shape: (N, C, H, W) of the whole file.
        batches: float32 (n, C, H, W) each, N rows in all.

    Raises:
        ValueError: at the first batch of another shape or dtype, or at the end if the number of rows is wrong.
    """
    yield npy_header(shape)
    rows = 0
    for batch in batches:
        if batch.dtype != DTYPE or batch.shape[1:] != shape[1:]:
            raise ValueError(f"a batch is {batch.dtype} {batch.shape}, not float32 of rows {shape[1:]}")
        yield batch.tobytes()
        rows += len(batch)
    if rows != shape[0]:
        raise ValueError(f"the batches hold {rows} rows, not {shape[0]}")
