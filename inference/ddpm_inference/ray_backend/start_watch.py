"""Watches a local Ray while it starts: Ray itself waits for a process that has died until its time is up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from ddpm_inference.process import run_notes
from ddpm_inference.process.supervisor import UNREPORTED_EXIT_CODE
from ddpm_inference.ray_backend.address import RayTarget
from ddpm_inference.ray_backend.ray_private import LOCAL_PROCESSES, SESSION_FOLDER, START_LIMIT_EXCEEDED

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
    logs: Path | None = None
    while not started.wait(POLL_SECONDS):
        children = children_of(os.getpid(), LOCAL_PROCESSES)
        if logs is None and (logs := _logs_of(children)):
            run_notes.note(rayLogs=str(logs))
        dead = [child.name for child in children if child.has_ended]
        # Ray may have reported it by now.
        if dead and not started.wait(POLL_SECONDS):
            run_notes.note(
                rayEnded=f"a local Ray could not be started: its {dead[0]} has died",
                startAgain=logs is not None and ended_by_its_own_limit(logs),
            )
            os._exit(UNREPORTED_EXIT_CODE)


def ended_by_its_own_limit(logs: Path) -> bool:
    """Returns whether the raylet has ended because its agents took longer to start than it waits, as on a busy machine.

    Args:
        logs: the folder of Ray's logs.
    """
    return any(START_LIMIT_EXCEEDED in file.read_text(errors="replace") for file in logs.glob("raylet.*"))


class Child(NamedTuple):
    """A child process; one that has ended was not waited for yet."""

    pid: int
    name: str
    has_ended: bool


def children_of(parent: int, names: tuple[str, ...]) -> list[Child]:
    """Returns the child processes with one of these names, as in the process table."""
    children = []
    for path in PROCESSES.glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:
            continue
        pid, _, text = text.partition(" (")
        name, _, rest = text.rpartition(")")
        state, its_parent = rest.split()[:2]
        if int(its_parent) == parent and name in names:
            children.append(Child(int(pid), name, state == "Z"))
    return children


def _logs_of(children: list[Child]) -> Path | None:
    """Returns the folder of the logs of this Ray, from the arguments of its processes; None if it is not known yet.

    The link to the latest session may be that of another Ray.
    """
    for child in children:
        with suppress(OSError):
            found = re.search(SESSION_FOLDER, (PROCESSES / str(child.pid) / "cmdline").read_bytes())
            if found:
                return Path(os.fsdecode(found[0])) / "logs"
    return None
