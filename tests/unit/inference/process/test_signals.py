"""SIGINT and SIGTERM, sent to real processes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ddpm_inference.process.signals import CLEANUP_SECONDS

pytestmark = pytest.mark.slow

SIGNALS = [signal.SIGINT, signal.SIGTERM]

# Both sleep briefly each time: Python handles a signal that arrives just before a sleep only after it.
PROGRAM = """
import time
from ddpm_inference.process.signals import interrupt_on_signals

try:
    with interrupt_on_signals():
        print("ready", flush=True)
        for _ in range(6000):
            time.sleep(0.01)
except KeyboardInterrupt:
    print("cleaned up")
"""

HANGS_IN_CLEANUP = """
import time
from ddpm_inference.process import signals

signals.CLEANUP_SECONDS = 1
with signals.interrupt_on_signals():
    while True:
        try:
            print("ready", flush=True)
            for _ in range(6000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass
"""


def start(program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_the_block(number: signal.Signals) -> None:
    process = start(PROGRAM)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert output == "cleaned up\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_hanging_cleanup_ends_with_exit_code_130(number: signal.Signals) -> None:
    process = start(HANGS_IN_CLEANUP)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_second_signal_does_not_disturb_the_cleanup() -> None:
    process = start(HANGS_IN_CLEANUP)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert output == ""
    assert process.returncode == 130


def test_the_cleanup_is_limited_to_seconds() -> None:
    assert CLEANUP_SECONDS <= 10
