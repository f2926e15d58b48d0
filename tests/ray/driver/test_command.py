"""The main command with a local Ray, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_inference.checkpoint import load
from ddpm_inference.job import ModelRequest, shards_of
from ddpm_inference.shard_sampler import ShardSampler
from ddpm_inference.store import Store
from tests.support.rays import (
    CommandResult,
    check_alive,
    descendants,
    finish,
    run_command,
    running,
    start_command,
    wait_until,
    workers,
)

QUICK = ("--sampler", "ddim", "--steps", "3", "--ray_address", "None")
# About a second per shard, so that the run can be interrupted half way.
SLOW = ("--sampler", "ddim", "--steps", "500", "--n_samples", "384", "--ray_address", "None", "--workers", "2")


def shards_in(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("*.npz"))


def hashes(out: Path) -> list[str]:
    samples = np.load(out / "samples.npy")
    return [hashlib.sha256(sample.tobytes()).hexdigest() for sample in samples]


def test_a_second_command_finds_the_samples_of_the_first(checkpoint: Path, tmp_path: Path) -> None:
    ended = run_command("--model_path", checkpoint, *QUICK, cwd=tmp_path)
    assert ended.code == 0, ended.err
    out = tmp_path / "out"
    assert ended.out == ""
    assert f"100 samples in {out}" in ended.err

    samples = np.load(out / "samples.npy")
    assert (samples.shape, samples.dtype) == ((100, 1, 8, 8), np.float32)
    assert samples.min() >= 0 <= samples.max() <= 1
    assert len(set(hashes(out))) == 100
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["n_samples"] == 100
    assert [(shard["first"], shard["last"]) for shard in manifest["shards"]] == [
        (0, 31),
        (32, 63),
        (64, 95),
        (96, 99),
    ]
    for name, record in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == record["sha256"]
    (npy,), (png,) = out.glob("ray_samples_*_all.npy"), out.glob("ray_samples_*_grid.png")
    assert npy.read_bytes() == (out / "samples.npy").read_bytes()
    assert png.read_bytes() == (out / "grid.png").read_bytes()
    assert Image.open(out / "grid.png").size[0] > 10 * 8

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = run_command("--model_path", checkpoint, *QUICK, cwd=tmp_path)
    assert again.code == 0
    assert "all 100 samples are stored already" in again.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_another_job_is_rejected_and_overwrite_replaces_it(checkpoint: Path, tmp_path: Path) -> None:
    command = ("--model_path", checkpoint, *QUICK, "--n_samples", "40")
    quiet = run_command(*command, "--quiet", cwd=tmp_path)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    first = hashes(tmp_path / "out")
    rejected = run_command(*command, "--seed", "1", cwd=tmp_path)
    assert rejected.code == 2
    assert "seed: 1, there 0" in rejected.err
    assert hashes(tmp_path / "out") == first

    replaced = run_command(*command, "--seed", "1", "--overwrite", "--json", cwd=tmp_path)
    assert (replaced.code, replaced.err) == (0, "")
    assert not set(hashes(tmp_path / "out")) & set(first)
    documents = [json.loads(line) for line in replaced.out.splitlines()]
    assert documents[-1]["event"] == "complete"
    assert (documents[-1]["samples"], documents[-1]["sampled"]) == (40, 40)
    phases = [document["phase"] for document in documents if document["event"] == "progress"]
    assert list(dict.fromkeys(phases)) == ["connecting", "starting", "sampling", "writing", "complete"]


def test_a_missing_gpu_is_rejected_with_the_node_table(checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--model_path", checkpoint, *QUICK, "--device", "cuda", "--num_cpus_per_task", "256")
    ended = run_command(*flags, cwd=tmp_path)
    assert ended.code == 3
    assert "each needs 0.25 GPU and 256 CPUs, and there is" in ended.err
    assert "GPU FREE" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_low_memory_on_a_node_is_named(checkpoint: Path, tmp_path: Path) -> None:
    # Ray's memory monitor, with a limit of a thousandth of the node's memory.
    scarce = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    flags = ("--model_path", checkpoint, *QUICK, "--workers", "1")
    ended = run_command(*flags, cwd=tmp_path, environment=scarce)
    assert ended.code == 4
    assert "error: Ray killed a worker because its node is running out of memory" in ended.err
    assert "--batch_size" in ended.err
    assert "Traceback" not in ended.err


def test_a_stopped_run_leaves_whole_shards_and_resumes(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def stopped(stop: Callable[[subprocess.Popen[str]], None]) -> tuple[CommandResult, dict[str, bytes]]:
        """Stops a run after its next shard; returns its output, and all shards that are stored then."""
        before = len(shards_in(out))
        process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
        wait_until(lambda: len(shards_in(out)) > before, check=lambda: check_alive(process))
        actors, children = workers(process.pid), descendants(process.pid)
        assert actors
        stop(process)
        ended = finish(process, timeout=30)
        # A killed driver cannot shut its Ray down, but the workers end by themselves.
        wait_until(lambda: not running(children if ended.code > 0 else actors), timeout=60)
        assert not (out / "manifest.json").exists()
        assert ended.code < 0 or not list(out.rglob("*partial*"))
        return ended, {path.name: path.read_bytes() for path in shards_in(out)}

    # As a terminal does: to the whole process group.
    by_control_c, first = stopped(lambda process: os.killpg(process.pid, signal.SIGINT))
    by_sigterm, second = stopped(subprocess.Popen.terminate)
    for ended, kept in ((by_control_c, first), (by_sigterm, second)):
        assert ended.code == 130
        assert "Traceback" not in ended.err
        note = f"{32 * len(kept)} of 384 samples are kept in {out}; run the same command again to resume"
        assert note in ended.err
    _, third = stopped(subprocess.Popen.kill)

    resumed = run_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert f"{384 - 32 * len(third)} drawn" in resumed.err
    for kept in (first, second, third):
        assert {name: (out / "shards" / name).read_bytes() for name in kept} == kept
    assert hashes(out) == drawn_without_ray(checkpoint, out)


def drawn_without_ray(checkpoint: Path, out: Path) -> list[str]:
    """Returns the hash of each sample of a finished run, drawn by one sampler in this process."""
    store = Store.open(str(out))
    identity, manifest = store.read_identity(), store.read_manifest()
    assert identity is not None
    assert manifest is not None
    sampler = ShardSampler(load(checkpoint, ModelRequest(uri=str(checkpoint))), identity, threads=1)
    shards = shards_of(manifest.n_samples, identity.batch_size)
    batches = [sampler.sample(shard, lambda done, steps: None) for shard in shards]
    return [hashlib.sha256(sample.tobytes()).hexdigest() for batch in batches for sample in batch]
