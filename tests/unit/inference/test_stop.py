"""The preStop hook: it signals the driver and waits until everything is stored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_inference import stop
from tests.support.rays import wait_until

pytestmark = pytest.mark.slow

# Sleeps briefly each time: Python handles a signal that arrives just before a sleep only after it.
DRIVER = """
import sys, time
from ddpm_inference import cli
def sample(arguments, run_state, at_exit):
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


def run_hook(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the preStop hook of the head."""
    command = [sys.executable, "-m", "ddpm_inference.stop"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)


def test_the_hook_waits_until_the_log_is_uploaded(environment: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    with log.open("wb") as file:
        driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment, stdout=file, stderr=file)
    wait_until(lambda: "begun" in log.read_text())
    hook = run_hook(environment)
    uploaded = (tmp_path / "out/logs/digits-1.log").read_text()
    assert (hook.stdout, hook.stderr) == ("", "")
    assert uploaded.splitlines()[0] == "begun"
    assert "stopped by a signal" in uploaded
    assert driver.wait(30) == 130


def test_the_hook_without_a_driver_does_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    assert run_hook(environment).stderr == ""
    command = [str(Path(sys.executable).with_name("ddpm-sample")), "--json", "--n_samples", "0"]
    with (tmp_path / "driver.log").open("wb") as log:
        subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=60, check=False)
    assert list(tmp_path.glob("*.pid")) == []


def test_the_hook_does_not_wait_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert stop.WAIT_SECONDS < 5
    monkeypatch.setattr(stop, "WAIT_SECONDS", 0.2)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        stop.register_driver()
        assert stop.main() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
