"""Calls that hold up an event loop, caught as they are made. No clock is asked: a slow machine is no culprit."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

# Python's own audit events of what may wait for others: names of hosts, disks, programs, pipes.
_MAY_WAIT = frozenset(
    {"open", "os.system", "os.posix_spawn", "subprocess.Popen", "socket.getaddrinfo", "socket.gethostbyname"}
)


@dataclass
class _Catcher:
    """What is caught while it is awake; Python has no way to take an audit hook away."""

    folder: Path | None = None
    caught: list[tuple[str, traceback.FrameSummary]] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or not _in_a_loop():
            return
        blocks = event in _MAY_WAIT or (event == "socket.connect" and _waits(arguments[0]))
        if blocks:
            self.catch(event)

    def catch(self, what: str) -> None:
        # To look up the lines now would open files, and be caught.
        frames = traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)
        ours = [frame for frame in frames if self.folder and _is_below(frame.filename, self.folder)]
        # Python reads a module when it is first imported, once.
        imports = any(frame.filename.startswith("<frozen importlib") for frame in frames)
        if ours and not imports:
            self.caught.append((what, ours[0]))


_CATCHER = _Catcher()
sys.addaudithook(lambda event, arguments: _CATCHER.hear(event, arguments))


@contextmanager
def blocking_calls(folder: Path) -> Iterator[list[str]]:
    """The blocking calls of code in a folder, and of what it calls, that event loops made during the block.

    They are in the list after it: what was called, by which line of which file.
    """
    sleep, caught = time.sleep, list[str]()

    def caught_sleep(seconds: float) -> None:
        if _in_a_loop():
            _CATCHER.catch("time.sleep")  # an audit event of its own from Python 3.13 on
        sleep(seconds)

    _CATCHER.folder, _CATCHER.caught = folder, []
    try:
        with mock.patch("time.sleep", caught_sleep):
            yield caught
    finally:
        _CATCHER.folder = None
        for what, by in _CATCHER.caught:
            caught.append(f"{what} by {Path(by.filename).name}, line {by.lineno}: {by.line}")


def _is_below(file: str, folder: Path) -> bool:
    return file != __file__ and Path(file).is_relative_to(folder)


def _in_a_loop() -> bool:
    """Whether this thread's event loop waits for what is being done."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _waits(connecting: object) -> bool:
    return isinstance(connecting, socket.socket) and connecting.gettimeout() != 0
