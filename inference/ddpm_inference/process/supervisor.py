"""Runs the driver in a child process, so that the parent can report it if the child is killed, or ended by Ray.

Ray's own code ends the process that uses it, with exit code 1 and without a word, once the processes of Ray have died.
Nothing in that process can prevent or report it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import FrameType

from ddpm_inference import stop
from ddpm_inference.errors import DdpmError, Incomplete, Interrupted, OutOfMemory, ResourcesUnavailable, WorkerLost
from ddpm_inference.process import run_notes
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.process.signals import SIGNALS, interrupt_on_signals

UNREPORTED_EXIT_CODE = 1
"""Not in the table of exit codes: a driver that ends with it has reported nothing."""

PHASES_BEFORE_SAMPLING = ("connecting", "starting")
MAX_STARTS = 3


def supervised(
    run: Callable[[], int], on_killed: Callable[[DdpmError], int], *, has_pre_stop_hook: bool, starts: int = MAX_STARTS
) -> int:
    """Runs a function in a forked child; returns its exit code. Signals are passed on to it.

    If this process is killed, the child gets SIGTERM. If the notes of the child say that a local Ray was too slow to
    start, the function is run again in another one, `starts` times in all. Must be called before any thread is
    started.

    Args:
        on_killed: called with the cause if a signal killed the child, or it ended without a report; returns the exit
            code.
        has_pre_stop_hook: whether the hook of `stop` is to find this process.
        starts: how often the function may be run.
    """
    oom_kills_before = oom_kills()
    run_notes.share()
    # A signal that the process ignores, as after nohup, is not passed on.
    passed_on = {number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    alive_in_child, alive = os.pipe()
    # A signal that arrives before this process can pass it on is delivered once it can.
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
    child = os.fork()
    if child == 0:
        os.close(alive)
        return _run_in_child(run, passed_on, alive_in_child)
    os.close(alive_in_child)
    sent: set[int] = set()

    def forward(number: int, _frame: FrameType | None) -> None:
        sent.add(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in passed_on:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    if has_pre_stop_hook:
        stop.register_driver()
    _, status = os.waitpid(child, 0)
    os.close(alive)
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        if code == UNREPORTED_EXIT_CODE:
            signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
            if starts > 1 and not sent and run_notes.read().get("startAgain"):
                print("the local Ray was too slow to start on this busy machine; it is started again", file=sys.stderr)
                return supervised(run, on_killed, has_pre_stop_hook=has_pre_stop_hook, starts=starts - 1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
            return on_killed(_with_note(_cause_of_silence()))
        if has_pre_stop_hook:
            stop.unregister_driver()
        return code
    number = signal.Signals(os.WTERMSIG(status))
    if number in sent:
        return on_killed(_with_note(Interrupted("stopped by a signal")))
    return on_killed(_with_note(_cause(number, oom_killed=oom_kills() > oom_kills_before)))


def _run_in_child(run: Callable[[], int], unblock: set[signal.Signals], alive: int) -> int:
    Thread(target=_end_with_parent, args=(alive,), name="end-with-parent", daemon=True).start()
    try:
        with interrupt_on_signals():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, unblock)
            return run()
    except KeyboardInterrupt:
        return Interrupted.exit_code


def _end_with_parent(alive: int) -> None:
    """Waits until the parent's end of a pipe is closed, then ends this process in order."""
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _cause(number: signal.Signals, *, oom_killed: bool) -> DdpmError:
    if number is signal.SIGKILL:
        if oom_killed:
            return OutOfMemory(
                "the kernel killed the driver: its pod exceeded its memory limit",
                hint="give the head more memory, or a smaller batch",
            )
        return Incomplete(f"the driver was killed by {number.name}", hint="find out what sent that signal")
    kind = ResourcesUnavailable if run_notes.read().get("phase") in PHASES_BEFORE_SAMPLING else Incomplete
    return kind(f"the driver was killed by {number.name}", hint=f"find out what sent that signal{_or_see_log()}")


def _cause_of_silence() -> DdpmError:
    notes = run_notes.read()
    if "rayEnded" in notes:
        return ResourcesUnavailable(f"{notes['rayEnded']}", hint=f"free memory and processes{_or_see_log()}")
    ray = notes.get("ray")
    if ray is None:
        return Incomplete(
            f"the driver ended with exit code {UNREPORTED_EXIT_CODE} and without a report",
            hint="what it printed before may say why",
        )
    kind = ResourcesUnavailable if notes.get("phase") in PHASES_BEFORE_SAMPLING else WorkerLost
    return kind(
        f"{ray} has died, and has ended the driver with it",
        hint=f"see whether its processes were killed or lack memory{_or_see_log()}; then run the same command again",
    )


def _or_see_log() -> str:
    logs = run_notes.read().get("rayLogs")
    return f", and see the log of Ray in {logs}" if logs else ""


def _with_note(error: DdpmError) -> DdpmError:
    """Returns the error, with a note of the samples that were stored when the driver last showed its progress."""
    notes = run_notes.read()
    if notes.get("total") and notes.get("phase") not in PHASES_BEFORE_SAMPLING:
        error.add_note(f"at least {notes['done']} of {notes['total']} samples are kept in {notes['output']}")
    return error
