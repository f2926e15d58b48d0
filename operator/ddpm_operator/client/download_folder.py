"""The local folder that `fetch` writes to. It holds one complete version of the samples, or no manifest."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.output_manifest import MANIFEST_NAME, OutputManifest, StoredFile, is_whole

# Inside the folder, so that it is on the same file system and a file is moved by a rename.
STAGE_NAME = ".fetch"


class DownloadFolder:
    """A folder with a staging folder inside.

    All files are downloaded into the staging folder and checked before the first one is moved to its final path. An
    interrupted download leaves complete files in the staging folder, and the next one continues from them.

    Args:
        path: created if it does not exist.

    Raises:
        OSError: from every method, if the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._stage = path / STAGE_NAME

    def manifest(self, sha256: str) -> OutputManifest | None:
        """Returns the folder's manifest if it has this sha256."""
        try:
            return OutputManifest.parse((self._path / MANIFEST_NAME).read_bytes(), sha256)
        except (FileNotFoundError, Damaged):
            return None

    def whole(self, manifest: OutputManifest) -> frozenset[StoredFile]:
        """Returns the files of a manifest that are complete, at their final path or in the staging folder."""
        return frozenset(
            file
            for file in manifest.wanted
            if any(is_whole(folder / file.path, file) for folder in (self._path, self._stage))
        )

    @contextmanager
    def staging(self, file: StoredFile) -> Iterator[BinaryIO]:
        """Opens a file for writing. It appears in the staging folder only if the block succeeds."""
        staged = self._stage / file.path
        staged.parent.mkdir(parents=True, exist_ok=True)
        partial = staged.with_name(f".{staged.name}.part")
        try:
            with partial.open("wb") as stream:
                yield stream
            partial.replace(staged)
        finally:
            partial.unlink(missing_ok=True)
            for folder in (staged.parent, self._stage):
                with suppress(OSError):  # not empty
                    folder.rmdir()

    def settle(self, manifest: OutputManifest, text: bytes) -> None:
        """Moves the staged files to their final paths, and removes the files of the previous version.

        The manifest is removed first and written last, so a folder with a manifest is always complete.

        Args:
            text: the manifest as it is stored.
        """
        manifest_path = self._path / MANIFEST_NAME
        previous = _listed_files(manifest_path)
        manifest_path.unlink(missing_ok=True)
        for file in manifest.wanted:
            staged = self._stage / file.path
            if is_whole(staged, file):
                final = self._path / file.path
                final.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(final)
        for path in previous - {file.path for file in manifest.wanted}:
            (self._path / path).unlink(missing_ok=True)
        partial = self._path / f".{MANIFEST_NAME}.part"
        partial.write_bytes(text)
        partial.replace(manifest_path)
        shutil.rmtree(self._stage, ignore_errors=True)


def _listed_files(manifest_path: Path) -> frozenset[str]:
    """Returns the paths that a manifest lists; none if it is missing or invalid."""
    try:
        manifest = OutputManifest.model_validate_json(manifest_path.read_bytes())
    except (FileNotFoundError, ValueError):
        return frozenset()
    return frozenset(file.path for file in manifest.wanted)
