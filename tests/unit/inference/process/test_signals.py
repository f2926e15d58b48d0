"""SIGINT and SIGTERM, sent for real to processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from ddpm_inference.process.signals import CLEANUP_SECONDS

SIGNALS = [signal.SIGINT, signal.SIGTERM]

# They sleep bit by bit: Python notices a signal that came just before a sleep only after it.
PROGRAM = """
import time
from ddpm_inference.process.signals import interrupt_on_signals

try:
    with interrupt_on_signals():
        print("ready", flush=True)
        for _ in range(6000):
            time.sleep(0.01)
except KeyboardInterrupt:
    print("in order")
"""

DEAF = """
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
def test_a_signal_ends_the_block_in_order(number: signal.Signals) -> None:
    process = start(PROGRAM)
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert said == "in order\n"
    assert process.returncode == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_clean_up_that_hangs_is_ended_by_force_with_the_right_code(number: signal.Signals) -> None:
    process = start(DEAF)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_a_second_signal_does_not_disturb_the_clean_up() -> None:
    process = start(DEAF)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert said == ""
    assert process.returncode == 130


def test_the_clean_up_may_take_a_few_seconds_only() -> None:
    assert CLEANUP_SECONDS <= 10
