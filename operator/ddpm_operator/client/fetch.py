"""Downloads the files of a complete sampling into a local folder, and checks each against the manifest."""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.conditions import holds_for_current_spec
from ddpm_operator.client.connection import Connection
from ddpm_operator.client.download_folder import DownloadFolder
from ddpm_operator.client.errors import Damaged, NotFound, SamplingFailed
from ddpm_operator.client.output_manifest import MANIFEST_NAME, OutputManifest, StoredFile
from ddpm_operator.client.progress_callback import ProgressCallback
from ddpm_operator.client.stored_files import RESTORE_HINT, StoredFiles, stored_files

_MAX_MANIFEST_BYTES = 256 << 20


class FetchedFile(NamedTuple):
    """A file in the folder, and whether it was already there before this fetch."""

    file: StoredFile
    was_there: bool


@dataclass(frozen=True)
class Fetched:
    """The folder's content after a fetch: every file that the manifest lists for the user, complete."""

    folder: Path
    manifest: OutputManifest
    manifest_sha256: str
    files: tuple[FetchedFile, ...]


def fetch(connection: Connection, sampling: DDPMSampling, path: Path, on_progress: ProgressCallback) -> Fetched:
    """Implements `Client.fetch`. Starts a reader pod only if a file is missing."""
    sha256, image = manifest_sha256_and_image(sampling)
    try:
        folder = DownloadFolder(path)
        local_manifest = folder.manifest(sha256)
        if local_manifest is not None:
            present = folder.whole(local_manifest)
            if len(present) == len(local_manifest.wanted):
                return _fetched(path, local_manifest, sha256, present)
        with stored_files(connection, sampling, image) as stored:
            text = _read_manifest(stored)
            manifest = OutputManifest.parse(text, sha256)
            present = folder.whole(manifest)
            _download(stored, [file for file in manifest.wanted if file not in present], folder, on_progress)
        folder.settle(manifest, text)
    except OSError as error:
        raise NotFound(
            f"{error.filename or path}: {error.strerror or error}", "choose a folder that you can write to"
        ) from error
    return _fetched(path, manifest, sha256, present)


def manifest_sha256_and_image(sampling: DDPMSampling) -> tuple[str, str]:
    """Returns (sha256 of the manifest, worker image) of a complete sampling."""
    name, status = sampling.metadata.name, sampling.status
    if holds_for_current_spec(sampling, ConditionType.FAILED):
        raise SamplingFailed(f"{name} has failed", f"`kubectl ddpm status {name}` shows the reason")
    output = status.output if status else None
    complete = holds_for_current_spec(sampling, ConditionType.COMPLETE)
    if not complete or status is None or output is None or not output.manifest_sha256 or not status.image:
        raise NotFound(f"{name} is not complete yet", f"wait for it with `kubectl ddpm watch {name}`")
    return output.manifest_sha256, status.image


def _fetched(path: Path, manifest: OutputManifest, sha256: str, present: frozenset[StoredFile]) -> Fetched:
    return Fetched(path, manifest, sha256, tuple(FetchedFile(file, file in present) for file in manifest.wanted))


def _read_manifest(stored: StoredFiles) -> bytes:
    with closing(stored.read([MANIFEST_NAME])) as files:
        length, content = next(files)
        if length > _MAX_MANIFEST_BYTES:
            raise Damaged(
                f"{MANIFEST_NAME} in the output is {length:,} bytes long; the maximum is {_MAX_MANIFEST_BYTES:,}",
                RESTORE_HINT,
            )
        return b"".join(content)


def _download(
    stored: StoredFiles, missing: list[StoredFile], folder: DownloadFolder, on_progress: ProgressCallback
) -> None:
    """Downloads the missing files into the staging folder, and checks the length and sha256 of each."""
    done, total = 0, sum(file.bytes for file in missing)
    with closing(stored.read([file.path for file in missing])) as files:
        for file, (length, content) in zip(missing, files, strict=True):
            if length != file.bytes:
                raise _damaged(file, f"has {length:,} bytes, but the manifest says {file.bytes:,}")
            digest = hashlib.sha256()
            with folder.staging(file) as staged:
                for chunk in content:
                    staged.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    on_progress(done, total)
                if digest.hexdigest() != file.sha256:
                    raise _damaged(file, f"has the sha256 {digest.hexdigest()}, but the manifest says {file.sha256}")


def _damaged(file: StoredFile, reason: str) -> Damaged:
    return Damaged(f"{file.path} in the output is damaged: it {reason}", RESTORE_HINT)
