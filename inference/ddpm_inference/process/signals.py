"""Turns SIGINT and SIGTERM into a KeyboardInterrupt, so that a run can clean up.

It is this exception because Ray's own code lets only this one pass.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ddpm_inference.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CLEANUP_SECONDS = 8


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread on the first signal within the block.

    Later signals are ignored while the program cleans up. If that takes longer than `CLEANUP_SECONDS`, or Python drops
    the exception (as it does in a finalizer), the process exits at once: stored shards are whole by then, and a local
    Ray ends with its driver. Must be entered in the main thread.
    """
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
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
