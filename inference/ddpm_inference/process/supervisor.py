"""Runs the driver in a child process, so that the parent can report it if the child is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from ddpm_inference import stop
from ddpm_inference.errors import DdpmError, Incomplete, OutOfMemory
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.process.signals import SIGNALS


def supervised(run: Callable[[], int], on_killed: Callable[[DdpmError], int]) -> int:
    """Runs a function in a forked child; returns its exit code. Signals, those of `stop` too, are passed on to it.

    Must be called before any thread is started.

    Args:
        on_killed: called with the cause if a signal killed the child; returns the exit code.
    """
    oom_kills_before = oom_kills()
    child = os.fork()
    if child == 0:
        return run()

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, forward)
    stop.register_driver()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        stop.unregister_driver()
        return os.WEXITSTATUS(status)
    return on_killed(_cause(signal.Signals(os.WTERMSIG(status)), oom_killed=oom_kills() > oom_kills_before))


def _cause(number: signal.Signals, *, oom_killed: bool) -> DdpmError:
    if oom_killed and number is signal.SIGKILL:
        return OutOfMemory(
            "the kernel killed the driver: its pod exceeded its memory limit",
            hint="give the head more memory, or a smaller batch",
        )
    return Incomplete(f"the driver was killed by {number.name}", hint="find out what sent that signal")
