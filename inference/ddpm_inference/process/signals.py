"""SIGINT and SIGTERM as one thing: a KeyboardInterrupt, so that a run can end in order.

It is this exception because Ray lets it, and no other, through its own code.
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
    """Within the block the first of the signals raises KeyboardInterrupt, wherever the main thread happens to be.

    Later ones are ignored while the program cleans up. Should that hang, or the exception be lost in a place where
    Python drops exceptions (a finalizer), the process ends by force: whole shards are stored by then, and a local
    Ray dies with its driver. Must be entered in the main thread.
    """
    before = {number: signal.signal(number, _stop) for number in SIGNALS}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(_number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(CLEANUP_SECONDS)
    raise KeyboardInterrupt


def _give_up(_number: int, _frame: FrameType | None) -> None:
    os._exit(Interrupted.exit_code)
