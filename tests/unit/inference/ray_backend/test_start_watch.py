"""The watch over a local Ray that starts: it finds the processes that died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm_inference.ray_backend.start_watch import children_of, ended_by_its_own_limit
from tests.support.rays import wait_until


def test_a_child_that_died_is_found_by_its_name(tmp_path: Path) -> None:
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        try:
            names = ("gcs_server", "raylet")
            assert children_of(os.getpid(), names) == [(process.pid, "raylet", False)]
            process.kill()
            wait_until(lambda: children_of(os.getpid(), names) == [(process.pid, "raylet", True)])
            assert children_of(os.getpid(), ("gcs_server",)) == []
            assert children_of(os.getppid(), names) == []
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Timed out waiting for file /tmp/ray/session_1/metrics_agent_port_2", True), ("killed", False)],
)
def test_a_raylet_that_gave_up_itself_is_known_by_its_log(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "raylet.err").write_text(f"(raylet) node_manager.cc: Check failed: {text}\n")
    (tmp_path / "raylet.out").write_bytes(b"\xff")
    assert ended_by_its_own_limit(tmp_path) is expected


# Starts a "Ray" whose raylet dies while `ray.init` waits inside its own code, which no signal interrupts.
DRIVER = """
import signal, subprocess, sys, time
from ddpm_inference.errors import DdpmError
from ddpm_inference.process.supervisor import supervised
from ddpm_inference.ray_backend import start_watch
from ddpm_inference.ray_backend.address import RayTarget

def run():
    with start_watch.watched_start(RayTarget(None, "from --ray_address")):
        child = subprocess.Popen([sys.argv[1], "1000"])
        child.send_signal(signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        time.sleep(1000)
    return 0

def on_killed(error: DdpmError) -> int:
    print(error.message)
    return error.exit_code

sys.exit(supervised(run, on_killed, has_pre_stop_hook=False))
"""


@pytest.mark.slow
def test_a_raylet_that_dies_while_it_starts_ends_the_driver(tmp_path: Path) -> None:
    program = tmp_path / "raylet"
    program.symlink_to("/bin/sleep")
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER, program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (3, "a local Ray could not be started: its raylet has died\n"), (
        ended.stderr
    )
