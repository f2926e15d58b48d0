"""The smoke run of the GPU check: its scripts and Triton kernels work before a GPU is at hand."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[3] / "benchmarks/gpu/check.py"
COVERED_WITHOUT_TRITON = ["environment", "peaks", "noise", "samples", "processes"]
NEED_TRITON = ["compilation", "our_networks", "diffusers_networks"]


@pytest.mark.slow
def test_the_smoke_run_covers_every_section_that_needs_no_gpu(tmp_path: Path) -> None:
    smoke = subprocess.run(
        [sys.executable, CHECK, "--smoke", "--out", tmp_path], capture_output=True, text=True, check=False
    )
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    *_, summary, verdict = smoke.stdout.splitlines()
    assert verdict == "OK"
    covered = set(summary.partition("covered: ")[2].split(", "))
    with_triton = importlib.util.find_spec("triton") is not None
    assert covered == {*COVERED_WITHOUT_TRITON, *(NEED_TRITON if with_triton else ())}
    assert ("Triton kernels included" in summary) is with_triton
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["memory_pressure"] == "skipped: needs a GPU"
    assert results["noise"]["noise words equal the known answers"] is True
