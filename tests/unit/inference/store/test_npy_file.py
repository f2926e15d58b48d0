"""A ``.npy`` made a batch at a time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_inference.store.npy_file import npy_chunks, npy_length


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5))
def test_the_bytes_are_those_of_numpy_however_the_rows_are_cut(n: int, batch: int, c: int, side: int) -> None:
    whole = np.linspace(0, 1, n * c * side * side, dtype=np.float32).reshape(n, c, side, side)
    file = io.BytesIO()
    np.save(file, whole)
    made = b"".join(npy_chunks(whole.shape, (whole[at : at + batch] for at in range(0, n, batch))))
    assert made == file.getvalue()
    assert npy_length(whole.shape) == len(made)


@pytest.mark.parametrize(
    "batch", [np.zeros((2, 1, 3, 3), np.float32), np.zeros((2, 1, 2, 2), np.float64)], ids=["shape", "dtype"]
)
def test_a_batch_that_does_not_fit_is_refused(batch: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not float32 of rows \(1, 2, 2\)"):
        b"".join(npy_chunks((2, 1, 2, 2), [batch]))
