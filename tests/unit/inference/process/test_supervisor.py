"""The parent of the driver: it reports what ended the driver, and neither outlives the other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rays import descendants, running, wait_until

pytestmark = pytest.mark.slow

# Runs statements in a supervised child; prints the error that the parent reports.
PROGRAM = """
import os, signal, sys, time
from ddpm_inference.process import run_notes, supervisor
from ddpm_inference.process.run_notes import note

def run():
    {statements}

def on_killed(error):
    print(type(error).__name__, error.message, *getattr(error, "__notes__", []), error.hint, sep="\\n", flush=True)
    return error.exit_code

{before}
sys.exit(supervisor.supervised(run, on_killed, has_pre_stop_hook=False))
"""
READY = "print('ready', flush=True)"
WAIT = "[time.sleep(0.01) for _ in range(60_000)]"
SAMPLING = "note(phase='sampling', done=64, total=200, output='/data/out', ray='a local Ray', rayLogs='/tmp/ray/logs')"
STARTING = "note(phase='connecting', done=0, total=0, output='/data/out', ray='a local Ray', rayLogs='/tmp/ray/logs')"


def program(*statements: str, before: str = "") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(statements="; ".join(statements), before=before)]


def run(*statements: str) -> tuple[int, list[str]]:
    ended = subprocess.run(program(*statements), stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout.splitlines()


def start(*statements: str, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(program(*statements, before=before), stdout=subprocess.PIPE, text=True)


def test_a_driver_that_ray_ends_is_reported_with_what_is_kept() -> None:
    code, lines = run(SAMPLING, "os._exit(1)")
    assert code == 4
    assert lines[:3] == [
        "WorkerLost",
        "a local Ray has died, and has ended the driver with it",
        "at least 64 of 200 samples are kept in /data/out",
    ]
    assert "see the log of Ray in /tmp/ray/logs" in lines[3]


def test_a_ray_that_dies_while_it_starts_is_exit_code_3() -> None:
    code, lines = run(STARTING, "os._exit(1)")
    assert code == 3
    assert lines[0] == "ResourcesUnavailable"
    assert "/tmp/ray/logs" in lines[2]


def test_a_crash_while_ray_starts_is_exit_code_3() -> None:
    code, lines = run(STARTING, "os.abort()")
    assert code == 3
    assert lines[1] == "the driver was killed by SIGABRT"
    assert "/tmp/ray/logs" in lines[2]


def test_a_ray_that_was_too_slow_to_start_is_started_again(tmp_path: Path) -> None:
    count = f"starts = open({str(tmp_path / 'starts')!r}, 'a+'); starts.write('x'); starts.flush(); starts.seek(0)"
    slow = "note(phase='connecting', rayEnded='its raylet has died', startAgain=True)"
    assert run(count, f"{slow}; len(starts.read()) == 3 or os._exit(1)", "return 0") == (0, [])
    assert (tmp_path / "starts").read_text() == "xxx"
    code, lines = run(slow, "os._exit(1)")
    assert (code, lines[:2]) == (3, ["ResourcesUnavailable", "its raylet has died"])


def test_an_end_without_notes_is_reported() -> None:
    code, lines = run("os._exit(1)")
    assert (code, lines[0]) == (4, "Incomplete")


@pytest.mark.parametrize("code", [0, 2, 3, 4, 130])
def test_an_exit_code_of_the_table_is_passed_on(code: int) -> None:
    assert run(f"return {code}") == (code, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_fork_is_done_is_passed_on(number: signal.Signals) -> None:
    # The parent gets it between the fork and its own handlers; both must end, and in order.
    before = (
        "fork = os.fork\n"
        "def fork_and_signal():\n"
        "    child = fork()\n"
        f"    if child: os.kill(os.getpid(), {int(number)})\n"
        "    return child\n"
        "os.fork = fork_and_signal"
    )
    process = start(READY, WAIT, "return 0", before=before)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_driver_without_its_parent_ends_in_order(tmp_path: Path) -> None:
    marker = tmp_path / "cleaned up"
    statements = f"\n    try: {READY}; {WAIT}\n    finally: open({str(marker)!r}, 'w').close()\n    return 0"
    process = start(statements)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    children = descendants(process.pid)
    assert children
    process.kill()
    wait_until(lambda: not running(children))
    assert marker.exists()
    process.communicate(timeout=60)
