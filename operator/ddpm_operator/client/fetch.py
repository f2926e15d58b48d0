"""Brings a complete sampling's files into a folder on the user's machine."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client.conditions import holds
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.errors import Damaged, NotFound, SamplingFailed
from ddpm_operator.client.folder import Folder
from ddpm_operator.client.manifest import NAME, Manifest, StoredFile
from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.stored_files import RESTORE, StoredFiles, stored_files

_LARGEST_MANIFEST = 256 << 20


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


def fetch(connection: Connection, sampling: DDPMSampling, path: Path, told: ProgressCallback) -> Fetched:
    """See `Client.fetch`. A pod is started only if something is missing."""
    sha256, image = _stored(sampling)
    try:
        folder = Folder(path)
        known = folder.manifest(sha256)
        if known is not None:
            there = folder.whole(known)
            if len(there) == len(known.wanted):
                return _fetched(path, known, sha256, there)
        with stored_files(connection, sampling, image) as stored:
            text = _manifest(stored)
            manifest = Manifest.read(text, sha256)
            there = folder.whole(manifest)
            _bring(stored, [file for file in manifest.wanted if file not in there], folder, told)
        folder.settle(manifest, text)
    except OSError as error:
        raise NotFound(
            f"{error.filename or path}: {error.strerror or error}", "give a folder that can be written"
        ) from error
    return _fetched(path, manifest, sha256, there)


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


def _fetched(path: Path, manifest: Manifest, sha256: str, there: frozenset[StoredFile]) -> Fetched:
    return Fetched(path, manifest, sha256, tuple(FetchedFile(file, file in there) for file in manifest.wanted))


def _manifest(stored: StoredFiles) -> bytes:
    with closing(stored.read([NAME])) as files:
        length, content = next(files)
        if length > _LARGEST_MANIFEST:
            raise Damaged(f"{NAME} at the output has {length:,} bytes, more than any has", RESTORE)
        return b"".join(content)


def _bring(stored: StoredFiles, lacking: list[StoredFile], folder: Folder, told: ProgressCallback) -> None:
    """Stages what is lacking, each file once it is whole."""
    come, total = 0, sum(file.bytes for file in lacking)
    with closing(stored.read([file.path for file in lacking])) as files:
        for file, (length, content) in zip(lacking, files, strict=True):
            if length != file.bytes:
                raise _wrong(file, f"has {length:,} bytes, and its manifest says {file.bytes:,}")
            digest = hashlib.sha256()
            with folder.staging(file) as written:
                for chunk in content:
                    written.write(chunk)
                    digest.update(chunk)
                    come += len(chunk)
                    told(come, total)
                if digest.hexdigest() != file.sha256:
                    raise _wrong(file, f"has the sha256 {digest.hexdigest()}, and its manifest says {file.sha256}")


def _wrong(file: StoredFile, what: str) -> Damaged:
    return Damaged(f"{file.path} at the output is damaged: it {what}", RESTORE)
