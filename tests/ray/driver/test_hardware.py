"""Growth with another number of threads, or on other hardware: rejected, or recorded where the user permits it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.support.rays import CommandResult, run_command

ARGUMENTS = ("--sampler", "ddim", "--steps", "3", "--batch_size", "4", "--ray_address", "None", "--workers", "1")
# What another CPU would be: other kernels.
OTHER_CPU = {"ATEN_CPU_CAPABILITY": "default"}


def sample(checkpoint: Path, cwd: Path, n_samples: int, *flags: str, **environment: str) -> CommandResult:
    arguments = ("--model_path", checkpoint, *ARGUMENTS, "--n_samples", str(n_samples), *flags)
    return run_command(*arguments, cwd=cwd, environment=environment)


def test_growth_on_other_hardware_is_rejected_or_recorded(checkpoint: Path, tmp_path: Path) -> None:
    assert sample(checkpoint, tmp_path, 4).code == 0
    first = json.loads((tmp_path / "out" / "manifest.json").read_text())
    rejected = sample(checkpoint, tmp_path, 8, **OTHER_CPU)
    assert rejected.code == 2
    assert "hardware.aten: DEFAULT, there" in rejected.err
    assert "--allow_mixed_hardware" in rejected.err
    mixed = sample(checkpoint, tmp_path, 8, "--allow_mixed_hardware", **OTHER_CPU)
    assert mixed.code == 0, mixed.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["fingerprint"] == first["fingerprint"]
    assert [shard.get("hardware", {}).get("aten") for shard in manifest["shards"]] == [None, "DEFAULT"]
    assert len(np.load(tmp_path / "out" / "samples.npy")) == 8


def test_growth_with_other_threads_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    two = sample(checkpoint, tmp_path, 4, "--num_cpus_per_task", "2")
    assert two.code == 0, two.err
    assert json.loads((tmp_path / "out" / "job.json").read_text())["threads"] == 2
    rejected = sample(checkpoint, tmp_path, 8, "--num_cpus_per_task", "1")
    assert rejected.code == 2
    assert "threads: 1, there 2" in rejected.err
    grown = sample(checkpoint, tmp_path, 8)
    assert grown.code == 0, grown.err
