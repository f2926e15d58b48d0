"""The files at a sampling's output, as a reader pod sends them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Damaged, Unreachable
from ddpm_operator.client.pods import Pod, running
from ddpm_operator.client.reader import read_command, reader_pod
from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand

RESTORE = "deleting and submitting the sampling again draws what is missing; see also who else writes there"

_LONGEST_SILENCE = 60.0
_LENGTH_BYTES = 8
_NOT_THERE = 44
# The command travels in a URL.
_FILES_A_COMMAND = 32


@dataclass(frozen=True)
class StoredFiles:
    """The output of a sampling, within reach of a pod that runs."""

    pod: Pod
    sampling: DDPMSampling

    def read(self, names: Sequence[str]) -> Generator[tuple[int, Iterator[bytes]]]:
        """(length in bytes, content) of each file in turn; a content is to be taken before the next one.

        Raises:
            Damaged: if a file is not there.
            Unreachable: if it cannot be read, with the reason.
        """
        for begin in range(0, len(names), _FILES_A_COMMAND):
            some = names[begin : begin + _FILES_A_COMMAND]
            with self.pod.running(read_command(self.sampling, some), _LONGEST_SILENCE) as reader:
                stream = _Stream(reader)
                for _ in some:
                    length = int.from_bytes(b"".join(stream.take(_LENGTH_BYTES)), "big")
                    yield length, stream.take(length)


@contextmanager
def stored_files(connection: Connection, sampling: DDPMSampling, image: str) -> Iterator[StoredFiles]:
    """Starts a reader pod for the time of the block."""
    with running(connection, reader_pod(sampling, image)) as pod:
        yield StoredFiles(pod, sampling)


class _Stream:
    """What a command writes, to be taken by so many bytes."""

    def __init__(self, command: RemoteCommand) -> None:
        self._command = command
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, chunk by chunk; fewer if there are no more."""
        while length > 0:
            chunk = self._rest or self._read()
            if not chunk:
                return
            yield chunk[:length]
            self._rest = chunk[length:]
            length -= min(length, len(chunk))

    def _read(self) -> bytes:
        try:
            return self._command.read()
        except CommandFailed as fault:
            if fault.code == _NOT_THERE:
                raise Damaged(f"{fault.message} is not there", RESTORE) from fault
            raise Unreachable(f"the samples could not be read: {fault.message}", fault.hint) from fault
