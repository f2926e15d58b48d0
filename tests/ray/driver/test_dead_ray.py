"""A local Ray whose processes die, and a worker that hangs: the run ends, or goes on, and says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support.rays import check_alive, descendants, finish, start_command, wait_until, workers

FLAGS = ("--sampler", "ddim", "--steps", "500", "--n_samples", "320", "--ray_address", "None", "--workers", "2")


def named(name: str, process: subprocess.Popen[str]) -> list[int]:
    """Returns the descendants of a process whose name or title, as in the process table, is this one."""
    return [
        pid for pid in descendants(process.pid) if Path(f"/proc/{pid}/comm").read_text().strip().startswith(name[:15])
    ]


def shards_of(folder: Path) -> int:
    return len(list((folder / "out" / "shards").glob("*.npz")))


def error_of(output: str) -> dict[str, object]:
    """Returns the last event of a run."""
    event: dict[str, object] = json.loads(output.splitlines()[-1])
    assert event["event"] == "error"
    return event


def kill_all(find: Callable[[], list[int]], process: subprocess.Popen[str]) -> None:
    wait_until(find, check=lambda: check_alive(process))
    for pid in find():
        os.kill(pid, signal.SIGKILL)


def test_killed_agents_end_the_run_with_what_is_kept(checkpoint: Path, tmp_path: Path) -> None:
    process = start_command("--model_path", checkpoint, *FLAGS, "--json", cwd=tmp_path)
    wait_until(lambda: shards_of(tmp_path) >= 2, check=lambda: check_alive(process))
    kill_all(lambda: named("ray::", process), process)
    ended = finish(process)
    assert ended.code == 4, ended.err
    error = error_of(ended.out)
    assert (error["exitCode"], error["reason"]) == (4, "WorkerLost")
    assert "has died" in str(error["message"])
    assert "of 320 samples are kept in" in str(error["message"])
    assert "/logs" in str(error["hint"])
    assert "Traceback" not in ended.err


def test_a_raylet_that_dies_while_it_starts_is_exit_code_3(checkpoint: Path, tmp_path: Path) -> None:
    process = start_command("--model_path", checkpoint, *FLAGS, "--json", cwd=tmp_path)
    kill_all(lambda: named("raylet", process), process)
    ended = finish(process)
    assert ended.code == 3, ended.err
    error = error_of(ended.out)
    assert error["exitCode"] == 3
    assert str(error["message"]).startswith("a local Ray could not be started")
    assert "/logs" in str(error["hint"])
    assert "Traceback" not in ended.err
    assert shards_of(tmp_path) == 0


def test_a_worker_that_hangs_is_replaced(checkpoint: Path, tmp_path: Path) -> None:
    flags = (*FLAGS, "--json", "--shard_timeout", "20")
    process = start_command("--model_path", checkpoint, *flags, cwd=tmp_path)
    wait_until(lambda: shards_of(tmp_path) >= 2, check=lambda: check_alive(process))
    os.kill(workers(process.pid)[0], signal.SIGSTOP)
    ended = finish(process)
    assert ended.code == 0, ended.err
    messages = [
        event["message"] for line in ended.out.splitlines() if (event := json.loads(line))["event"] == "message"
    ]
    assert any("longer than --shard_timeout 20; their worker is replaced (1 so far)" in each for each in messages)
