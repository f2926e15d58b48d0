"""The log of a run that is told to keep it: it is at the output before anybody hears of the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ddpm_inference.errors import OutOfMemory
from ddpm_inference.process import log_upload
from ddpm_inference.process.log_upload import LogUpload
from tests.support.rays import wait_until

# Prints that it has begun, and then does as it is told in the child that `supervised` makes.
WATCHED = """
import os, signal, sys
from ddpm_inference import cli
from ddpm_inference.process import supervisor
kills = iter({kills})
supervisor.oom_kills = lambda: next(kills)
def run(arguments):
    print("child", os.getpid(), flush=True)
    {does}
cli._main = run
sys.exit(cli.main(["--json"]))
"""


def environment(out: Path, **more: str) -> dict[str, str]:
    job = {"version": 1, "model": {"uri": str(out / "none.safetensors")}, "output": {"uri": str(out)}}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DDPM_")}
    return {**clean, "DDPM_JOB": json.dumps(job), "DDPM_LOG": "digits-1", **more}


def ended(command: list[str], out: Path, **more: str) -> int:
    """Runs it as Ray runs a job: stdout and stderr go to one file."""
    with (out / "driver.log").open("wb") as log:
        return subprocess.run(
            command, env=environment(out, **more), stdout=log, stderr=log, timeout=60, check=False
        ).returncode


def last_event(out: Path) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((out / "logs/digits-1.log").read_text().splitlines()[-1])
    return event


def watched(does: str, kills: tuple[int, int] = (0, 0)) -> list[str]:
    return [sys.executable, "-c", WATCHED.format(does=does, kills=kills)]


def test_a_run_that_is_refused_keeps_all_it_has_said(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json"]
    assert ended(command, tmp_path) == 2
    assert (tmp_path / "logs/digits-1.log").read_bytes() == (tmp_path / "driver.log").read_bytes()
    assert last_event(tmp_path)["reason"] == "ModelNotFound"


def test_without_the_variable_nothing_is_kept(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json"]
    assert ended(command, tmp_path, DDPM_LOG="../../elsewhere") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["driver.log"]


@pytest.mark.parametrize("code", [0, 3])
def test_a_watched_runs_exit_code_is_its_own(code: int, tmp_path: Path) -> None:
    assert ended(watched(f"return {code}"), tmp_path) == code


def test_a_run_that_is_killed_is_told_of_and_its_log_kept(tmp_path: Path) -> None:
    assert ended(watched("os.kill(os.getpid(), signal.SIGKILL)"), tmp_path) == 4
    assert (last_event(tmp_path)["reason"], last_event(tmp_path)["exitCode"]) == ("DriverFailed", 4)
    assert "SIGKILL" in last_event(tmp_path)["message"]
    assert (tmp_path / "logs/digits-1.log").read_text().startswith("child ")


def test_a_run_that_the_kernel_has_killed_for_its_memory_is_out_of_memory(tmp_path: Path) -> None:
    assert ended(watched("os.kill(os.getpid(), signal.SIGKILL)", kills=(3, 4)), tmp_path) == OutOfMemory.exit_code
    assert last_event(tmp_path)["reason"] == "OutOfMemory"


def test_a_signal_reaches_the_run_itself(tmp_path: Path) -> None:
    does = "signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); print('ready', flush=True); signal.pause()"
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        process = subprocess.Popen(watched(does), env=environment(tmp_path), stdout=file, stderr=file)
    wait_until(lambda: "ready" in log.read_text(), meanwhile=lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 7


def test_of_a_long_log_whole_lines_of_its_end_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_upload, "LARGEST", 10)
    (tmp_path / "log").write_text("first\nsecond\nthird\n")
    LogUpload(tmp_path / "log", str(tmp_path / "out"), "logs/a.log").keep()
    assert (tmp_path / "out/logs/a.log").read_text() == "third\n"


def test_a_log_is_kept_again_and_again_and_a_place_that_fails_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_upload, "EVERY_SECONDS", 0.01)
    (tmp_path / "log").write_text("first\n")
    kept = tmp_path / "out/logs/a.log"
    with LogUpload(tmp_path / "log", str(tmp_path / "out"), "logs/a.log").kept_meanwhile():
        wait_until(kept.exists, meanwhile=lambda: None)
    (tmp_path / "file").write_text("")
    LogUpload(tmp_path / "log", str(tmp_path / "file"), "logs/a.log").keep()
    assert "the log could not be kept" in capsys.readouterr().err
