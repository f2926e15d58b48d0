"""Detects blocking calls in an event loop, by Python's audit events rather than by time: slowness is no blocking."""

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

# Audit events of calls that may block: on disks, name servers and processes.
_BLOCKING_EVENTS = frozenset(
    {"open", "os.system", "os.posix_spawn", "subprocess.Popen", "socket.getaddrinfo", "socket.gethostbyname"}
)


@dataclass
class _Recorder:
    """Records blocking calls while `folder` is set. Python cannot remove an audit hook."""

    folder: Path | None = None
    calls: list[tuple[str, traceback.FrameSummary]] = field(default_factory=list)

    def on_audit_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.folder is None or not _in_event_loop():
            return
        if event in _BLOCKING_EVENTS or (event == "socket.connect" and _is_blocking(arguments[0])):
            self.record(event)

    def record(self, what: str) -> None:
        # Looking up the source lines now would open files, which would be recorded too.
        frames = traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)
        ours = [frame for frame in frames if self.folder and _is_below(frame.filename, self.folder)]
        # A module is read from disk once, at its first import.
        imports = any(frame.filename.startswith("<frozen importlib") for frame in frames)
        if ours and not imports:
            self.calls.append((what, ours[0]))


_RECORDER = _Recorder()
sys.addaudithook(lambda event, arguments: _RECORDER.on_audit_event(event, arguments))


@contextmanager
def blocking_calls(folder: Path) -> Iterator[list[str]]:
    """Collects the blocking calls in event loops, during the block, of code in a folder and of what that code calls.

    Yields:
        a list that after the block has one description of each: the call, and the file and line that made it.
    """
    sleep, descriptions = time.sleep, list[str]()

    def recording_sleep(seconds: float) -> None:
        if _in_event_loop():
            _RECORDER.record("time.sleep")  # an audit event of its own from Python 3.13 on
        sleep(seconds)

    _RECORDER.folder, _RECORDER.calls = folder, []
    try:
        with mock.patch("time.sleep", recording_sleep):
            yield descriptions
    finally:
        _RECORDER.folder = None
        for what, by in _RECORDER.calls:
            descriptions.append(f"{what} by {Path(by.filename).name}, line {by.lineno}: {by.line}")


def _is_below(file: str, folder: Path) -> bool:
    return file != __file__ and Path(file).is_relative_to(folder)


def _in_event_loop() -> bool:
    """Whether the current code runs in this thread's event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_blocking(connecting: object) -> bool:
    return isinstance(connecting, socket.socket) and connecting.gettimeout() != 0
