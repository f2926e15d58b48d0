"""Watches a local Ray while it starts: Ray itself waits for a process that has died until its time is up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from ddpm_inference.process import run_notes
from ddpm_inference.process.supervisor import UNREPORTED_EXIT_CODE
from ddpm_inference.ray_backend.address import RayTarget
from ddpm_inference.ray_backend.ray_private import LOCAL_PROCESSES

POLL_SECONDS = 0.5
PROCESSES = Path("/proc")


@contextmanager
def watched_start(target: RayTarget) -> Iterator[None]:
    """Ends this process if one of a local Ray's processes dies before the block has ended; the parent reports it.

    The main thread cannot be interrupted: it waits inside Ray's own code. Does nothing in a process without a
    supervisor, or where there is no ``/proc``.
    """
    if target.address is not None or not run_notes.is_shared() or not PROCESSES.is_dir():
        yield
        return
    started = Event()
    Thread(target=_watch, args=(started,), name="ray-start", daemon=True).start()
    try:
        yield
    finally:
        started.set()


def _watch(started: Event) -> None:
    while not started.wait(POLL_SECONDS):
        dead = dead_children(os.getpid(), LOCAL_PROCESSES)
        # Ray may have reported it by now.
        if dead and not started.wait(POLL_SECONDS):
            run_notes.note(rayEnded=f"a local Ray could not be started: its {dead[0]} has died")
            os._exit(UNREPORTED_EXIT_CODE)


def dead_children(parent: int, names: tuple[str, ...]) -> list[str]:
    """Returns the names of child processes that have ended and were not waited for yet; the others are left out.

    Args:
        names: those to look for, as in the process table.
    """
    dead = []
    for path in PROCESSES.glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        state, its_parent = rest.split()[:2]
        if state == "Z" and int(its_parent) == parent and name in names:
            dead.append(name)
    return dead
