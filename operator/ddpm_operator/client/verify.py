"""Verifies the stored files of a complete sampling: the reader pod hashes them, so that none is downloaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.resources import files
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Unreachable
from ddpm_operator.client.fetch import manifest_sha256_and_image
from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.remote_command import CommandFailed
from ddpm_operator.client.stored_files import stored_files

_SILENCE_TIMEOUT = 60.0
_MAX_LINE_BYTES = 4096
_MAX_DAMAGED = 10_000

Size = Annotated[int, Field(ge=0)]
FileName = Annotated[str, Field(pattern=r"^(shards/\d{9,20}-\d{9,20}\.npz|[A-Za-z0-9_][A-Za-z0-9._-]{0,127})$")]
Text = Annotated[str, Field(pattern=r"^[ -~]{1,200}$")]


class DamagedFile(NamedTuple):
    """A file that is not what the manifest says: its name, and what is wrong, such as `is missing`."""

    name: str
    problem: str


class Verified(NamedTuple):
    """The result of a verification.

    Attributes:
        samples: N of the manifest; None if the manifest itself is damaged.
        files: the number of files that were hashed.
        damaged: empty if the output is whole.
    """

    manifest_sha256: str
    samples: int | None
    files: int
    damaged: tuple[DamagedFile, ...]


class _Line(BaseModel):
    """A line of `verifier_program`; it has the fields of one of three kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    done: Size | None = None
    total: Size | None = None
    file: FileName | None = None
    problem: Text | None = None
    samples: Size | None = None
    files: Size | None = None


def verify(connection: Connection, sampling: DDPMSampling, on_progress: ProgressCallback) -> Verified:
    """Implements `Client.verify`."""
    sha256, image = manifest_sha256_and_image(sampling)
    program = files(__package__).joinpath("verifier_program.py").read_text()
    with stored_files(connection, sampling, image) as stored:
        command = ["python", "-P", "-c", program, stored.folder, sha256]
        with stored.pod.running(command, _SILENCE_TIMEOUT) as remote:
            try:
                return verified_from(remote.output(), sha256, on_progress)
            except CommandFailed as error:
                raise Unreachable(f"cannot read the output: {error.message}", error.hint) from error


def verified_from(output: Iterable[bytes], sha256: str, on_progress: ProgressCallback) -> Verified:
    """Reads the output of `verifier_program`, in chunks of any size.

    Raises:
        Unreachable: if it is incomplete, or not that of the program.
    """
    damaged: list[DamagedFile] = []
    for line in _lines(output):
        try:
            parsed = _Line.model_validate_json(line)
        except ValidationError as error:
            raise _unusable("it printed something else") from error
        if parsed.file is not None and parsed.problem is not None:
            damaged.append(DamagedFile(parsed.file, parsed.problem))
            if parsed.file == "manifest.json":
                return Verified(sha256, None, 0, tuple(damaged))
            if len(damaged) > _MAX_DAMAGED:
                raise _unusable(f"it reported more than {_MAX_DAMAGED:,} files")
        elif parsed.files is not None:
            return Verified(sha256, parsed.samples, parsed.files, tuple(damaged))
        elif parsed.done is not None and parsed.total is not None:
            on_progress(parsed.done, parsed.total)
    raise _unusable("it ended early")


def _lines(output: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in output:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > _MAX_LINE_BYTES:
            raise _unusable("it printed a line that is too long")


def _unusable(why: str) -> Unreachable:
    return Unreachable(f"the pod that hashes the output did not report: {why}", "try again")
