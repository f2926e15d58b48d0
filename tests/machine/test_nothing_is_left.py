"""The node of hack/node leaves no traces on the machine, also after a crash.

These tests start and stop the node themselves, so none may run: `make test TIER=machine`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(2400)  # the first `up` may build all programs

NODE = Path(__file__).resolve().parents[2] / "hack/node"


def run(script: str, *arguments: str) -> str:
    """Runs a script of hack/node; returns its stdout. Its progress on stderr stays visible."""
    command = [NODE / script, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1800).stdout.strip()


def footprint() -> list[str]:
    return run("footprint").splitlines()


def kinds(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines}


@pytest.fixture
def before() -> Iterator[list[str]]:
    """The machine's footprint without a node. The test's node is removed at the end in any case."""
    done = subprocess.run([NODE / "kubeconfig"], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0, "a node runs: hack/node/down first"
    run("down")
    yield footprint()
    run("down")


def state_folder(kubeconfig: str) -> Path:
    return Path(kubeconfig).parent


def init_pid(kubeconfig: str) -> int:
    """Returns the PID of the node's first process on this machine."""
    return int((state_folder(kubeconfig) / "init.pid").read_text())


def test_up_and_down_are_idempotent(before: list[str]) -> None:
    first = run("up")
    init, links = init_pid(first), [line for line in footprint() if line.startswith(("link", "route"))]
    assert run("up") == first
    assert init_pid(first) == init
    assert [line for line in footprint() if line.startswith(("link", "route"))] == links
    assert {"link", "route", "cgroup", "process"} <= kinds(footprint())
    for _ in range(2):
        run("down")
        assert footprint() == before


def test_down_cleans_up_after_a_crash(before: list[str]) -> None:
    kubeconfig = run("up")
    os.kill(init_pid(kubeconfig), signal.SIGKILL)
    run("down")
    assert footprint() == before


def test_up_replaces_a_crashed_node(before: list[str]) -> None:
    killed = init_pid(run("up"))
    os.kill(killed, signal.SIGKILL)
    assert init_pid(run("up")) != killed
    run("down")
    assert footprint() == before


def test_down_cleans_up_after_a_killed_up(before: list[str]) -> None:
    run("up")  # builds everything
    kubeconfig = run("kubeconfig")
    run("down")
    up = subprocess.Popen([NODE / "up"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (state_folder(kubeconfig) / "init.pid").exists() and time.monotonic() < deadline and up.poll() is None:
        os.sched_yield()
    up.kill()
    up.wait()
    assert "process" in kinds(footprint())
    run("down")
    assert footprint() == before
