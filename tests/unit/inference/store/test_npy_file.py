"""A ``.npy`` file written in batches."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_inference.store.npy_file import npy_chunks, npy_length


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5))
def test_the_bytes_equal_those_of_numpy(n: int, batch: int, c: int, side: int) -> None:
    array = np.linspace(0, 1, n * c * side * side, dtype=np.float32).reshape(n, c, side, side)
    file = io.BytesIO()
    np.save(file, array)
    written = b"".join(npy_chunks(array.shape, (array[at : at + batch] for at in range(0, n, batch))))
    assert written == file.getvalue()
    assert npy_length(array.shape) == len(written)


@pytest.mark.parametrize(
    "batch", [np.zeros((2, 1, 3, 3), np.float32), np.zeros((2, 1, 2, 2), np.float64)], ids=["shape", "dtype"]
)
def test_a_mismatched_batch_is_refused(batch: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not float32 of rows \(1, 2, 2\)"):
        b"".join(npy_chunks((2, 1, 2, 2), [batch]))
