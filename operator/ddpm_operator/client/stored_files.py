"""Reads files from a sampling's output, a claim or a bucket, through a reader pod.

The pod mounts the claim read-only, or gets the bucket's credentials. Each read runs `reader_program` in it by exec.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files

from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.uri import claim_path
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Damaged, Unreachable
from ddpm_operator.client.helper_pod import HelperPod, helper_pod, run_helper_pod
from ddpm_operator.client.remote_command import CommandFailed, RemoteCommand
from ddpm_operator.manifests.naming import claim_name
from ddpm_operator.manifests.render import OUTPUT_PATH

RESTORE_HINT = (
    "delete the sampling and submit it again, which draws only the missing samples; check also whether another job "
    "writes to the same output"
)

_SILENCE_TIMEOUT = 60.0
_LENGTH_BYTES = 8
# reader_program's exit code for a file that does not exist.
_NOT_FOUND = 44
# The names are part of the exec URL, whose length is limited.
_MAX_FILES_PER_COMMAND = 32


@dataclass(frozen=True)
class StoredFiles:
    """A sampling's output, readable through a running reader pod."""

    pod: HelperPod
    sampling: DDPMSampling

    @property
    def folder(self) -> str:
        """The output's path or URI as the pod accesses it."""
        return _output_folder(self.sampling)

    def read(self, names: Sequence[str]) -> Generator[tuple[int, Iterator[bytes]]]:
        """Yields (length in bytes, content) of each file in turn. Consume a content before taking the next file.

        Raises:
            Damaged: if a file does not exist.
            Unreachable: if a file cannot be read, with the reason.
        """
        for start in range(0, len(names), _MAX_FILES_PER_COMMAND):
            batch = names[start : start + _MAX_FILES_PER_COMMAND]
            with self.pod.running(_read_command(self.sampling, batch), _SILENCE_TIMEOUT) as command:
                stream = _Stream(command)
                for _ in batch:
                    length = int.from_bytes(b"".join(stream.take(_LENGTH_BYTES)), "big")
                    yield length, stream.take(length)


@contextmanager
def stored_files(connection: Connection, sampling: DDPMSampling, image: str) -> Iterator[StoredFiles]:
    """Runs a reader pod for the duration of the block."""
    with run_helper_pod(connection, _reader_pod(sampling, image)) as pod:
        yield StoredFiles(pod, sampling)


class _Stream:
    """Splits a command's standard output into parts of known length."""

    def __init__(self, command: RemoteCommand) -> None:
        self._command = command
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        """Yields the next `length` bytes in chunks; fewer if the output ends."""
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
        except CommandFailed as error:
            if error.code == _NOT_FOUND:
                raise Damaged(f"{error.message} does not exist", RESTORE_HINT) from error
            raise Unreachable(f"cannot read the output: {error.message}", error.hint) from error


def _reader_pod(sampling: DDPMSampling, image: str) -> dict[str, JsonValue]:
    """Returns a pod with the output's claim mounted read-only, or with the credentials of its bucket."""
    claim, secret = _output_claim(sampling), sampling.spec.credentials_secret_ref
    credentials = secret.name if secret and not claim else None
    return helper_pod(sampling, image, "reader", claim, OUTPUT_PATH, credentials=credentials)


def _read_command(sampling: DDPMSampling, names: Sequence[str]) -> list[str]:
    """Returns the command that writes the stored files to standard output, one after another."""
    program = files(__package__).joinpath("reader_program.py").read_text()
    return ["python", "-P", "-c", program, _output_folder(sampling), *names]


def _output_claim(sampling: DDPMSampling) -> str | None:
    uri = sampling.spec.output.uri
    location = claim_path(uri or "")
    if location:
        return location.claim
    return None if uri else claim_name(sampling.metadata)


def _output_folder(sampling: DDPMSampling) -> str:
    """Returns the output's path or URI as the reader pod accesses it."""
    uri = sampling.spec.output.uri
    location = claim_path(uri or "")
    if location:
        return f"{OUTPUT_PATH}/{location.path}"
    return uri.rstrip("/") if uri else OUTPUT_PATH
