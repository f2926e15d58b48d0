"""Turns SIGINT, SIGTERM and SIGHUP into a KeyboardInterrupt, so that a run can clean up.

It is this exception because Ray's own code lets only this one pass.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ddpm_inference.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLEANUP_SECONDS = 8


@contextmanager
def signals_blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Delays signals until the block ends. The processes that the block starts never get them.

    Ray's processes must outlive a signal to their whole process group, as a terminal sends SIGHUP when it is closed,
    until the driver has stored what is finished.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread on the first signal within the block.

    Later signals are ignored while the program cleans up. If that takes longer than `CLEANUP_SECONDS`, or Python drops
    the exception (as it does in a finalizer), the process exits at once: stored shards are whole by then, and a local
    Ray ends with its driver. A SIGHUP that the process was started to ignore, as nohup does, stays ignored. Must be
    entered in the main thread.
    """
    hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    handled = [number for number in SIGNALS if number is not signal.SIGHUP or not hangup_ignored]
    before = {number: signal.signal(number, _interrupt) for number in handled}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _exit_now)
    signal.alarm(CLEANUP_SECONDS)
    raise KeyboardInterrupt


def _exit_now(_number: int, _frame: FrameType | None) -> None:
    os._exit(Interrupted.exit_code)
