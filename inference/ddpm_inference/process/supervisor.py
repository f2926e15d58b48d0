"""A run in a process of its own, so that somebody is left to tell of it if it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType

from ddpm_inference import stop
from ddpm_inference.errors import DdpmError, Incomplete, OutOfMemory
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.process.signals import SIGNALS


def supervised(run: Callable[[], int], bereaved: Callable[[DdpmError], int]) -> int:
    """Runs in a child, to which signals are passed on, those of `stop` as well; returns its exit code.

    Must be called before there are threads.

    Args:
        bereaved: is called with the reason if the child was killed; returns the exit code then.
    """
    before = oom_kills()
    child = os.fork()
    if child == 0:
        return run()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in SIGNALS:
        signal.signal(number, pass_on)
    stop.begun()
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        stop.stored()
        return os.WEXITSTATUS(status)
    return bereaved(_cause(signal.Signals(os.WTERMSIG(status)), starved=oom_kills() > before))


def _cause(number: signal.Signals, *, starved: bool) -> DdpmError:
    if starved and number is signal.SIGKILL:
        return OutOfMemory(
            "the kernel ended the driver, as its pod needed more memory than its limit",
            hint="give the head more memory, or a smaller batch",
        )
    return Incomplete(f"the driver was ended by {number.name}", hint="see who sent it that signal")
