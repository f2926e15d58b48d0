"""A local run does not depend on where it is started, who reads its output, or whether its terminal stays open."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.planted import imported, plant_modules
from tests.support.rays import (
    COMMAND,
    check_alive,
    descendants,
    finish,
    running,
    start_command,
    wait_until,
)

SCRIPT = Path(__file__).resolve().parents[3] / "inference" / "run_ray_inference.py"
QUICK = ("--sampler", "ddim", "--steps", "3", "--n_samples", "40", "--ray_address", "None", "--workers", "1")
# About a second per shard, so that the run can be interrupted half way.
SLOW = ("--sampler", "ddim", "--steps", "500", "--n_samples", "384", "--ray_address", "None", "--workers", "2")


def run_in_shell(command: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a bash command with the arguments as ``"$@"``; Ray has none of this environment's variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        ["bash", "-c", command, "bash", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def samples_in(out: Path) -> int:
    n_samples: int = json.loads((out / "manifest.json").read_text())["n_samples"]
    return n_samples


def test_a_run_is_completed_without_its_reader_and_imports_nothing_of_its_folder(
    checkpoint: Path, tmp_path: Path
) -> None:
    marks = plant_modules(tmp_path)
    command = '{ "$@"; echo $? >code; } | head -1'
    ended = run_in_shell(command, COMMAND, "--model_path", checkpoint, *QUICK, "--json", cwd=tmp_path)
    assert imported(marks) == []
    assert ((tmp_path / "code").read_text(), ended.stderr) == ("0\n", "")
    assert len(ended.stdout.splitlines()) == 1
    assert samples_in(tmp_path / "out") == 40


def test_the_script_of_the_guide_does_so_too_with_closed_streams(checkpoint: Path, tmp_path: Path) -> None:
    marks = plant_modules(tmp_path)
    command = '"$@" >&- 2>&-'
    ended = run_in_shell(command, sys.executable, SCRIPT, "--model_path", checkpoint, *QUICK, cwd=tmp_path)
    assert imported(marks) == []
    assert ended.returncode == 0
    assert samples_in(tmp_path / "out") == 40


def test_closing_the_terminal_keeps_the_finished_shards(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_command("--model_path", checkpoint, *SLOW, cwd=tmp_path)
    wait_until(lambda: list((out / "shards").glob("*.npz")), check=lambda: check_alive(process))
    children = descendants(process.pid)
    # The terminal sends it to the whole process group, Ray's processes included.
    os.killpg(process.pid, signal.SIGHUP)
    ended = finish(process, timeout=30)
    wait_until(lambda: not running(children), timeout=60)
    kept = len(list((out / "shards").glob("*.npz")))
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert f"{32 * kept} of 384 samples are kept in {out}" in ended.err
    assert not list(out.rglob("*partial*"))
