"""Checks that a folder can be an output before a run starts Ray, which takes seconds and may take a cluster."""

from __future__ import annotations

import os
from pathlib import Path

from ddpm_inference.errors import OutputConflict, UnwritableOutput
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.storage_backend import StorageBackend


def require_folder(backend: StorageBackend) -> None:
    """Checks that no file is where the output folder or one of its parents has to be. Writes nothing.

    Raises:
        OutputConflict: naming the file.
    """
    if isinstance(backend, Folder):
        found = _nearest(backend.path)
        if not found.is_dir():
            kind = "a file" if found.exists() else "a link to nothing"
            raise OutputConflict(
                f"the output {backend.path} cannot be a folder: {found} is {kind}",
                hint="choose another output URI, or move that away",
            )


def require_writable(backend: StorageBackend) -> None:
    """Checks that the output folder can be written to, or made where it is missing. Writes nothing.

    Raises:
        OutputConflict: see `require_folder`.
        UnwritableOutput: naming the folder.
    """
    require_folder(backend)
    if not isinstance(backend, Folder):
        return
    for folder in dict.fromkeys(map(_nearest, (backend.path, backend.path / "shards"))):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UnwritableOutput(
                f"the output {backend.path} cannot be written: user id {os.geteuid()} may not write to {folder}, or "
                "its file system is read-only",
                hint="choose another output URI, or change the permissions there",
            )


def _nearest(path: Path) -> Path:
    """Returns the path, or the nearest parent of it that exists."""
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), Path("/"))
