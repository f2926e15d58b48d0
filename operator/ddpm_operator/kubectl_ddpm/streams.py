"""Readers of stdout and stderr that end before the command does, as `head` does.

A command that does something goes on, and its exit code is that of its result. One that only shows something ends.

All output of the program goes through `sys.stdout` and `sys.stderr`, so replacing these two is enough: for the views,
`print`, rich, tracebacks, argparse, and Python's own flush at exit.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# The reader of a pipe has ended; the descriptor is closed or not for writing; the terminal is closed.
READER_IS_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.EIO})
STANDARD_DESCRIPTORS = (0, 1, 2)


def outlive_readers() -> None:
    """Makes stdout and stderr discard what is written to them from the moment that it cannot be written.

    Replaces only the streams that the process was started with, so that calling it again has no effect. Call it before
    anything opens a file.
    """
    _open_closed_descriptors()
    sys.stdout = _lasting(sys.stdout, sys.__stdout__)
    sys.stderr = _lasting(sys.stderr, sys.__stderr__)


class ReaderIsGone(Exception):
    """The reader of stdout has ended, and the command has nothing else to do."""


def end_with_reader() -> None:
    """Makes writing to stdout raise ReaderIsGone, once, when its reader has ended."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Output):
        raw.ends_with_reader = True


class _Output(io.FileIO):
    """A descriptor that becomes the null device when a write to it fails.

    The descriptor itself is replaced, because child processes write to it, too.
    """

    ends_with_reader = False

    def write(self, data: ReadableBuffer, /) -> int:
        while True:
            try:
                written: int | None = super().write(data)
            except OSError as error:
                self._discard_from_now_on(error)
                return memoryview(data).nbytes
            if written is not None:
                return written
            # A full pipe that another process has made non-blocking.
            _wait_until_writable(self.fileno())

    def _discard_from_now_on(self, error: OSError) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if error.errno not in READER_IS_GONE and self.fileno() == 1:
            print(f"stdout cannot be written, so the rest of it is lost: {error.strerror}", file=sys.stderr)
        if self.ends_with_reader:
            raise ReaderIsGone from error


def _wait_until_writable(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()


def _open_closed_descriptors() -> None:
    # Otherwise the next file or socket would get the descriptor, and a child process would print into it.
    for descriptor in STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)
            if null != descriptor:
                os.close(null)
            os.set_inheritable(descriptor, True)


def _lasting(stream: TextIO | None, original: TextIO | None) -> TextIO:
    if stream is None:  # closed when Python started
        return Path(os.devnull).open("w", encoding="utf-8")
    if stream is not original or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
    )
