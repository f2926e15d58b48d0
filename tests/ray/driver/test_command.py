"""The main command with a Ray of its own, as a user runs it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.rays import alive, descendants, end_of, run_command, running, start_command, wait_until, workers

QUICK = ("--sampler", "ddim", "--steps", "3", "--ray_address", "None")
# About a second a shard: long enough to be interrupted half way.
SLOW = ("--sampler", "ddim", "--steps", "500", "--n_samples", "320", "--ray_address", "None", "--workers", "2")


def shards_in(out: Path) -> list[Path]:
    return sorted((out / "shards").glob("*.npz"))


def hashes(out: Path) -> list[str]:
    samples = np.load(out / "samples.npy")
    return [hashlib.sha256(sample.tobytes()).hexdigest() for sample in samples]


def test_one_command_draws_100_samples_and_a_second_one_finds_them(checkpoint: Path, tmp_path: Path) -> None:
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
    assert "all 100 samples are there" in again.err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_what_is_shown_keeps_to_its_channel(checkpoint: Path, tmp_path: Path) -> None:
    quiet = run_command("--model_path", checkpoint, *QUICK, "--n_samples", "3", "--quiet", cwd=tmp_path)
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    as_json = run_command("--model_path", checkpoint, *QUICK, "--n_samples", "40", "--json", cwd=tmp_path)
    assert (as_json.code, as_json.err) == (0, "")
    documents = [json.loads(line) for line in as_json.out.splitlines()]
    assert documents[-1]["event"] == "complete"
    assert (documents[-1]["samples"], documents[-1]["sampled"]) == (40, 40)
    phases = [document["phase"] for document in documents if document["event"] == "progress"]
    assert list(dict.fromkeys(phases)) == ["connecting", "starting", "sampling", "writing", "complete"]


def test_another_run_in_the_same_folder_is_refused_and_overwrite_replaces_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    command = ("--model_path", checkpoint, *QUICK, "--n_samples", "3")
    assert run_command(*command, cwd=tmp_path).code == 0
    first = hashes(tmp_path / "out")
    refused = run_command(*command, "--seed", "1", cwd=tmp_path)
    assert refused.code == 2
    assert "seed: 1, there 0" in refused.err
    assert hashes(tmp_path / "out") == first
    assert run_command(*command, "--seed", "1", "--overwrite", cwd=tmp_path).code == 0
    assert not set(hashes(tmp_path / "out")) & set(first)


def test_a_gpu_that_is_not_there_is_refused_at_once_with_the_table(checkpoint: Path, tmp_path: Path) -> None:
    flags = ("--model_path", checkpoint, *QUICK, "--device", "cuda", "--num_cpus_per_task", "256")
    ended = run_command(*flags, cwd=tmp_path)
    assert ended.code == 3
    assert "each needs 0.25 GPU and 256 CPUs, and there is" in ended.err
    assert "GPU FREE" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_a_node_that_runs_out_of_memory_is_called_so(checkpoint: Path, tmp_path: Path) -> None:
    # Ray's own watch over memory, told that a thousandth of what there is may be used.
    scarce = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    flags = ("--model_path", checkpoint, *QUICK, "--workers", "1")
    ended = run_command(*flags, cwd=tmp_path, environment=scarce)
    assert ended.code == 4
    assert "error: Ray ended a worker since its node runs out of memory" in ended.err
    assert "--batch_size" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_whole_shards_and_no_process_and_the_run_can_go_on(
    number: signal.Signals, checkpoint: Path, tmp_path: Path, uninterrupted: list[str]
) -> None:
    out = tmp_path / "out"
    process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    wait_until(lambda: len(shards_in(out)) >= 2, meanwhile=lambda: alive(process))
    below = descendants(process.pid)
    if number == signal.SIGINT:
        # As a terminal does, to the whole group of the command.
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    ended = end_of(process, within=30)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    wait_until(lambda: not running(below), within=30)

    kept = shards_in(out)
    assert f"{32 * len(kept)} of 320 samples are kept in {out}; run the same command again to resume" in ended.err
    assert not list(out.rglob("*partial*"))
    assert not (out / "manifest.json").exists()
    before = {path.name: path.read_bytes() for path in kept}

    resumed = run_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert f"{320 - 32 * len(kept)} drawn" in resumed.err
    assert {name: (out / "shards" / name).read_bytes() for name in before} == before
    assert hashes(out) == uninterrupted


def test_a_killed_driver_takes_its_workers_along_and_the_run_can_go_on(
    checkpoint: Path, tmp_path: Path, uninterrupted: list[str]
) -> None:
    out = tmp_path / "out"
    process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    wait_until(lambda: len(shards_in(out)) >= 2, meanwhile=lambda: alive(process))
    drawing = workers(process.pid)
    assert drawing
    process.kill()
    end_of(process)
    wait_until(lambda: not running(drawing), within=60)

    resumed = run_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert hashes(out) == uninterrupted


@pytest.fixture(scope="module")
def uninterrupted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    ended = run_command("--model_path", checkpoint, *SLOW, cwd=folder)
    assert ended.code == 0, ended.err
    return hashes(folder / "out")
