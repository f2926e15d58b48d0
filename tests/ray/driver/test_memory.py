"""The memory of the driver does not grow with the number of samples."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
SAMPLE_MB = 28 * 28 * np.dtype(np.float32).itemsize / 2**20


def peak_mb(n_samples: int, folder: Path) -> int:
    command = [
        sys.executable,
        ROOT / "benchmarks" / "memory.py",
        "--n_samples",
        str(n_samples),
        "--folder",
        folder,
    ]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, int] = json.loads(ended.stdout)
    return measured["peak_mb"]


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    few, many = 2_000, 40_000
    assert (many - few) * SAMPLE_MB > 100
    assert peak_mb(many, tmp_path) - peak_mb(few, tmp_path) < 30
