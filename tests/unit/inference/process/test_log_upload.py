"""The uploaded log of a run, and the supervisor that uploads it when the run is killed."""

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
from tests.support.rays import check_alive, wait_until

pytestmark = pytest.mark.slow

# Prints its PID in the child of `supervised`, then executes a statement there.
SUPERVISED = """
import os, signal, sys
from ddpm_inference import cli
from ddpm_inference.process import supervisor
kills = iter({kills})
supervisor.oom_kills = lambda: next(kills)
def run(arguments):
    print("child", os.getpid(), flush=True)
    {statement}
cli._main = run
sys.exit(cli.main(["--json"]))
"""


def environment(out: Path, **more: str) -> dict[str, str]:
    job = {"version": 1, "model": {"uri": str(out / "none.safetensors")}, "output": {"uri": str(out)}}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DDPM_")}
    return {**clean, "DDPM_JOB": json.dumps(job), "DDPM_LOG": "digits-1", **more}


def exit_code_of(command: list[str], out: Path, **more: str) -> int:
    """Runs a command as Ray runs a job, with stdout and stderr in one file; returns its exit code."""
    with (out / "driver.log").open("wb") as log:
        return subprocess.run(
            command, env=environment(out, **more), stdout=log, stderr=log, timeout=60, check=False
        ).returncode


def last_event(out: Path) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((out / "logs/digits-1.log").read_text().splitlines()[-1])
    return event


def supervised(statement: str, oom_kills: tuple[int, int] = (0, 0)) -> list[str]:
    """Returns a command that runs a statement in a supervised child, with these OOM kills before and after it."""
    return [sys.executable, "-c", SUPERVISED.format(statement=statement, kills=oom_kills)]


def test_the_log_of_a_rejected_run_is_uploaded_whole(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json"]
    assert exit_code_of(command, tmp_path) == 2
    assert (tmp_path / "logs/digits-1.log").read_bytes() == (tmp_path / "driver.log").read_bytes()
    assert last_event(tmp_path)["reason"] == "ModelNotFound"


def test_an_invalid_log_name_uploads_nothing(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json"]
    assert exit_code_of(command, tmp_path, DDPM_LOG="../../elsewhere") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["driver.log"]


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_of_the_child_is_kept(code: int, tmp_path: Path) -> None:
    assert exit_code_of(supervised(f"return {code}"), tmp_path) == code


def test_a_killed_run_is_reported_and_its_log_uploaded(tmp_path: Path) -> None:
    assert exit_code_of(supervised("os.kill(os.getpid(), signal.SIGKILL)"), tmp_path) == 4
    assert (last_event(tmp_path)["reason"], last_event(tmp_path)["exitCode"]) == ("DriverFailed", 4)
    assert "SIGKILL" in last_event(tmp_path)["message"]
    assert (tmp_path / "logs/digits-1.log").read_text().startswith("child ")


def test_an_oom_killed_run_is_out_of_memory(tmp_path: Path) -> None:
    assert (
        exit_code_of(supervised("os.kill(os.getpid(), signal.SIGKILL)", oom_kills=(3, 4)), tmp_path)
        == OutOfMemory.exit_code
    )
    assert last_event(tmp_path)["reason"] == "OutOfMemory"


def test_signals_are_forwarded_to_the_child(tmp_path: Path) -> None:
    statement = "signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); print('ready', flush=True); signal.pause()"
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        variables = environment(tmp_path, TMPDIR=str(tmp_path))
        process = subprocess.Popen(supervised(statement), env=variables, stdout=file, stderr=file)
    # The parent writes its PID file once it forwards signals.
    ready = [lambda: "ready" in log.read_text(), (tmp_path / "ddpm-driver.pid").exists]
    wait_until(lambda: all(each() for each in ready), check=lambda: check_alive(process))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 7


def test_the_end_of_a_long_log_is_uploaded_in_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_upload, "MAX_LOG_BYTES", 10)
    (tmp_path / "log").write_text("first\nsecond\nthird\n")
    LogUpload(tmp_path / "log", str(tmp_path / "out"), "logs/a.log").upload()
    assert (tmp_path / "out/logs/a.log").read_text() == "third\n"


def test_the_log_is_uploaded_repeatedly_and_failures_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_upload, "UPLOAD_INTERVAL_SECONDS", 0.01)
    (tmp_path / "log").write_text("first\n")
    uploaded = tmp_path / "out/logs/a.log"
    with LogUpload(tmp_path / "log", str(tmp_path / "out"), "logs/a.log").repeated():
        wait_until(uploaded.exists)
    (tmp_path / "file").write_text("")
    LogUpload(tmp_path / "log", str(tmp_path / "file"), "logs/a.log").upload()
    assert "the log could not be uploaded" in capsys.readouterr().err
