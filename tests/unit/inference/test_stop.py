"""A pod that is about to go: its driver is asked to end, and is waited for until it has stored what it has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_inference import stop
from tests.support.rays import wait_until

# It says when it has begun, and waits bit by bit: Python notices a signal that came just before a wait after it.
DRIVER = """
import sys, time
from ddpm_inference import cli
def sample(arguments, board, afterwards):
    print("begun", flush=True)
    while True:
        time.sleep(0.01)
cli._sample = sample
sys.exit(cli.main(["--json"]))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    out = tmp_path / "out"
    job = f'{{"version": 1, "model": {{"uri": "builtin://mnist"}}, "output": {{"uri": "{out}"}}}}'
    return {**os.environ, "DDPM_JOB": job, "DDPM_LOG": "digits-1", "TMPDIR": str(tmp_path)}


def ask(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What the head's preStop hook runs."""
    command = [sys.executable, "-m", "ddpm_inference.stop"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)


def test_a_driver_that_is_asked_has_its_log_at_the_output_before_its_pod_goes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment, stdout=file, stderr=file)
    wait_until(lambda: "begun" in log.read_text())
    said = ask(environment)
    kept = (tmp_path / "out/logs/digits-1.log").read_text()
    assert (said.stdout, said.stderr) == ("", "")
    assert kept.splitlines()[0] == "begun"
    assert "stopped by a signal" in kept
    assert driver.wait(30) == 130


def test_where_no_driver_is_at_work_nobody_is_asked(environment: dict[str, str], tmp_path: Path) -> None:
    assert ask(environment).stderr == ""
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json", "--n_samples", "0"]
    with (tmp_path / "driver.log").open("wb") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=60, check=False)
    assert list(tmp_path.glob("*.pid")) == []


def test_a_driver_that_does_not_end_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert stop.WITHIN_SECONDS < 5
    monkeypatch.setattr(stop, "WITHIN_SECONDS", 0.2)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        stop.begun()
        assert stop.main() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
