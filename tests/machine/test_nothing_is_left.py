"""A node comes and goes, is killed at any moment, and the machine is afterwards as it was.

These start and end the node themselves, so none may be up: `make test TIER=machine`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(2400)  # the first `up` may have to build

NODE = Path(__file__).resolve().parents[2] / "hack/node"


def say(script: str, *arguments: str) -> str:
    """What a script of hack/node prints; its progress stays visible."""
    command = [NODE / script, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1800).stdout.strip()


def footprint() -> list[str]:
    return say("footprint").splitlines()


def kinds(lines: list[str]) -> set[str]:
    return {line.split()[0] for line in lines}


@pytest.fixture
def before() -> Iterator[list[str]]:
    """The machine's footprint without a node; the test's own node is gone at the end, whatever becomes of it."""
    asked = subprocess.run([NODE / "kubeconfig"], capture_output=True, check=False, timeout=60)
    assert asked.returncode != 0, "a node is up: hack/node/down first"
    say("down")
    yield footprint()
    say("down")


def state(kubeconfig: str) -> Path:
    return Path(kubeconfig).parent


def init_of(kubeconfig: str) -> int:
    """The node's first process, as this machine counts."""
    return int((state(kubeconfig) / "init.pid").read_text())


def test_up_twice_starts_nothing_anew_and_down_twice_leaves_nothing(before: list[str]) -> None:
    first = say("up")
    init, links = init_of(first), [line for line in footprint() if line.startswith(("link", "route"))]
    assert say("up") == first
    assert init_of(first) == init
    assert [line for line in footprint() if line.startswith(("link", "route"))] == links
    assert {"link", "route", "cgroup", "process"} <= kinds(footprint())
    for _ in range(2):
        say("down")
        assert footprint() == before


def test_a_node_whose_first_process_was_killed_leaves_nothing_after_down(before: list[str]) -> None:
    kubeconfig = say("up")
    os.kill(init_of(kubeconfig), signal.SIGKILL)
    say("down")
    assert footprint() == before


def test_after_a_kill_up_starts_a_new_node_and_down_leaves_nothing_of_both(before: list[str]) -> None:
    killed = init_of(say("up"))
    os.kill(killed, signal.SIGKILL)
    assert init_of(say("up")) != killed
    say("down")
    assert footprint() == before


def test_an_up_that_is_killed_while_the_node_starts_leaves_nothing_after_down(before: list[str]) -> None:
    say("up")  # so that all is built
    kubeconfig = say("kubeconfig")
    say("down")
    up = subprocess.Popen([NODE / "up"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (state(kubeconfig) / "init.pid").exists() and time.monotonic() < deadline and up.poll() is None:
        os.sched_yield()
    up.kill()
    up.wait()
    assert "process" in kinds(footprint())
    say("down")
    assert footprint() == before
