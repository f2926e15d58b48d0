"""A file into the standard input of a command in a pod, no faster than it is taken."""

from __future__ import annotations

from typing import BinaryIO

from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand

PIECE = 1 << 18
# Bytes that may be on their way. So an error of the far side is heard in time, and no more is told than has come.
UNHEARD = 4 << 20


def send(content: BinaryIO, receiver: RemoteCommand, length: int, told: ProgressCallback) -> None:
    """Sends a file to a command that says on lines how much of it has come, as `uploader_program` does.

    Args:
        length: of the file, in bytes.
        told: is called with the bytes that have come and those that are to come, again and again.

    Raises:
        CommandFailed: if the command ends before it has it all, or the file has become shorter.
        OSError: if the file cannot be read.
    """
    heard = _Heard(receiver)
    sent = 0
    if heard.next() == length:
        return
    while piece := content.read(min(PIECE, length - sent)):
        receiver.write(piece)
        sent += len(piece)
        while sent - heard.come > UNHEARD:
            told(heard.next(), length)
    while heard.come < length and sent == length:
        told(heard.next(), length)
    if sent < length:
        raise CommandFailed(f"it has become shorter: {sent:,} bytes of {length:,} are left", "submit it again")


class _Heard:
    """How much of a file the far side has, as it says on a line now and then."""

    def __init__(self, receiver: RemoteCommand) -> None:
        self._receiver = receiver
        self._rest = b""
        self.come = 0

    def next(self) -> int:
        while b"\n" not in self._rest:
            piece = self._receiver.read()
            if not piece:
                raise CommandFailed("the pod ended before it had the file", "try again")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        self.come = int(line)
        return self.come
