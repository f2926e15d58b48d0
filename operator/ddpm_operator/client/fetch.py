"""Brings a complete sampling's files into a folder on the user's machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.faults import Damaged, NotFound, SamplingFailed
from ddpm_operator.client.manifest import NAME, Manifest, StoredFile, is_whole
from ddpm_operator.client.pods import Pod, running
from ddpm_operator.client.reader import CONTAINER, read_command, reader_pod
from ddpm_operator.client.standing import holds

Told = Callable[[int, int], None]

_LARGEST_MANIFEST = 256 << 20
# The command travels in a URL.
_FILES_A_COMMAND = 32
_LONGEST_SILENCE = 60.0


class FetchedFile(NamedTuple):
    """One file of the folder, and whether it was there before."""

    file: StoredFile
    was_there: bool


@dataclass(frozen=True)
class Fetched:
    """What a folder holds now: every file that the manifest names for a person, whole."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str
    files: tuple[FetchedFile, ...]


def nobody(_come: int, _of: int) -> None:
    """Is told, and does nothing."""


def fetch(connection: Connection, sampling: DDPMSampling, folder: Path, told: Told) -> Fetched:
    """See `Client.fetch`. A pod is started only if something is missing."""
    sha256, image = _stored(sampling)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / NAME
        if known.is_file() and hashlib.sha256(known.read_bytes()).hexdigest() == sha256:
            manifest = Manifest.read(known.read_bytes(), sha256)
            there = _there(folder, manifest)
            if len(there) == len(manifest.wanted):
                return _fetched(folder, manifest, sha256, there)
        with _reader(connection, sampling, image) as read:
            text = _whole_manifest(read([NAME]))
            manifest = Manifest.read(text, sha256)
            there = _there(folder, manifest)
            lacking = [file for file in manifest.wanted if file not in there]
            _bring(read, lacking, folder, told)
        _put(known, text)
    except OSError as error:
        raise NotFound(
            f"{error.filename or folder}: {error.strerror or error}", "give a folder that can be written"
        ) from error
    return _fetched(folder, manifest, sha256, there)


Read = Callable[[Sequence[str]], Iterator[bytes]]


@contextmanager
def _reader(connection: Connection, sampling: DDPMSampling, image: str) -> Iterator[Read]:
    with running(connection, reader_pod(sampling, image)) as pod:
        yield lambda names: _read(pod, sampling, names)


def _read(pod: Pod, sampling: DDPMSampling, names: Sequence[str]) -> Iterator[bytes]:
    return pod.command(CONTAINER, read_command(sampling, names), _LONGEST_SILENCE)


def _stored(sampling: DDPMSampling) -> tuple[str, str]:
    """(sha256 of the manifest, image) of a complete sampling."""
    name, status = sampling.metadata.name, sampling.status
    if holds(sampling, ConditionType.FAILED):
        raise SamplingFailed(f"{name} has failed", f"`kubectl ddpm status {name}` says why")
    result = status.output if status else None
    complete = holds(sampling, ConditionType.COMPLETE)
    if not complete or status is None or result is None or not result.manifest_sha256 or not status.image:
        raise NotFound(f"{name} is not complete yet", f"wait for it with `kubectl ddpm watch {name}`")
    return result.manifest_sha256, status.image


def _there(folder: Path, manifest: Manifest) -> frozenset[StoredFile]:
    return frozenset(file for file in manifest.wanted if is_whole(folder / file.path, file))


def _fetched(folder: Path, manifest: Manifest, sha256: str, there: frozenset[StoredFile]) -> Fetched:
    return Fetched(folder, manifest, sha256, tuple(FetchedFile(file, file in there) for file in manifest.wanted))


def _whole_manifest(stream: Iterator[bytes]) -> bytes:
    text = b""
    for chunk in stream:
        text += chunk
        if len(text) > _LARGEST_MANIFEST:
            raise Damaged(f"{NAME} at the output is longer than any", "see who else writes there")
    return text


def _bring(read: Read, lacking: Sequence[StoredFile], folder: Path, told: Told) -> None:
    come, total = 0, sum(file.bytes for file in lacking)
    for begin in range(0, len(lacking), _FILES_A_COMMAND):
        some = lacking[begin : begin + _FILES_A_COMMAND]
        stream = _Stream(read([file.path for file in some]))
        for file in some:
            come = _bring_one(stream, file, folder / file.path, lambda more: told(more, total), come)
        stream.end()


def _bring_one(stream: _Stream, file: StoredFile, path: Path, told: Callable[[int], None], come: int) -> int:
    """Writes one file under another name, and gives it its own once it is whole; returns the bytes come so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    digest = hashlib.sha256()
    try:
        with partial.open("wb") as written:
            for chunk in stream.take(file.bytes):
                written.write(chunk)
                digest.update(chunk)
                come += len(chunk)
                told(come)
        if digest.hexdigest() != file.sha256:
            raise _wrong(file.path)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return come


def _put(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)


def _wrong(what: str) -> Damaged:
    return Damaged(
        f"{what} is not what the manifest says",
        "see who else writes to the output; deleting and submitting the sampling again restores what is missing",
    )


class _Stream:
    """Chunks of any length, to be taken by so many bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, chunk by chunk; fewer if there are no more."""
        while length > 0:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            yield chunk[:length]
            self._rest = chunk[length:]
            length -= min(length, len(chunk))

    def end(self) -> None:
        """Nothing more has to come, and the command has to end well."""
        if self._rest or next(self._chunks, b""):
            raise _wrong("the output")
