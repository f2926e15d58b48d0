"""The folder on the user's machine that samples are brought to. It holds one version of them, or none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.manifest import NAME, Manifest, StoredFile, is_whole

# Inside, so that a file gets to its place by a rename.
STAGE = ".fetch"


class Folder:
    """Files that come are whole in a stage of their own before the first of them gets to its place; what is staged
    when that is interrupted is there the next time.

    Args:
        path: made if it is not there.

    Raises:
        OSError: as every method here, if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._stage = path / STAGE

    def manifest(self, sha256: str) -> Manifest | None:
        """The manifest of what is here, if it is this one."""
        try:
            return Manifest.read((self._path / NAME).read_bytes(), sha256)
        except (FileNotFoundError, Damaged):
            return None

    def whole(self, manifest: Manifest) -> frozenset[StoredFile]:
        """The files of a manifest that are here already, or in the stage."""
        return frozenset(
            file
            for file in manifest.wanted
            if any(is_whole(place / file.path, file) for place in (self._path, self._stage))
        )

    @contextmanager
    def staging(self, file: StoredFile) -> Iterator[BinaryIO]:
        """A file to write to, which is in the stage once the block has ended well, and nowhere if not."""
        place = self._stage / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.part")
        try:
            with partial.open("wb") as written:
                yield written
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
            for empty in (place.parent, self._stage):
                with suppress(OSError):
                    empty.rmdir()

    def settle(self, manifest: Manifest, text: bytes) -> None:
        """Puts what is staged in its place: files of a former version go, and the manifest comes last.

        While that lasts, no manifest is here.

        Args:
            text: of the manifest.
        """
        known = self._path / NAME
        former = _former(known)
        known.unlink(missing_ok=True)
        for file in manifest.wanted:
            staged = self._stage / file.path
            if is_whole(staged, file):
                place = self._path / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                staged.replace(place)
        for path in former - {file.path for file in manifest.wanted}:
            (self._path / path).unlink(missing_ok=True)
        partial = self._path / f".{NAME}.part"
        partial.write_bytes(text)
        partial.replace(known)
        shutil.rmtree(self._stage, ignore_errors=True)


def _former(known: Path) -> frozenset[str]:
    """The files of the version that is here."""
    try:
        return frozenset(file.path for file in Manifest.model_validate_json(known.read_bytes()).wanted)
    except (FileNotFoundError, ValueError):
        return frozenset()
