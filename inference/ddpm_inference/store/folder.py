"""Storage backend for a folder of the local file system."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ddpm_inference.errors import StorageFailed
from ddpm_inference.store.storage_backend import ListedFile


@dataclass(frozen=True)
class Folder:
    """Files below an absolute path, written by one process at a time.

    A file is written under a hidden name in the same folder, synced to disk, and renamed.
    """

    path: Path

    @property
    def uri(self) -> str:
        return str(self.path)

    @property
    def writable_by_workers(self) -> bool:
        return False

    def exists(self) -> bool:
        with _storage_errors("looked up", self.path):
            return self.path.exists()

    def sizes(self, folder: str) -> dict[str, int]:
        return {name: file.bytes for name, file in self.listing(folder).items()}

    def listing(self, folder: str) -> dict[str, ListedFile]:
        path = self.path / folder
        with _storage_errors("listed", path):
            return {entry.name: _listed(entry.stat()) for entry in _files(path) if not _is_partial(entry.name)}

    def read(self, name: str, max_bytes: int) -> bytes | None:
        path = self.path / name
        with _storage_errors("read", path):
            try:
                with path.open("rb") as file:
                    return file.read(max_bytes + 1)
            except FileNotFoundError:
                return None

    def read_each(self, names: Iterable[str], max_bytes: int) -> Iterator[bytes | None]:
        return (self.read(name, max_bytes) for name in names)

    def read_range(self, name: str, start: int, length: int) -> bytes | None:
        path = self.path / name
        with _storage_errors("read", path):
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    return file.read(length)
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        with self.stream(name, len(data)) as file:
            file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        path = self.path / name
        with _storage_errors("looked up", path):
            if path.exists():
                return False
        self.write(name, data)
        return True

    def reserve(self, name: str, data: bytes) -> bool:
        path = self.path / name
        with _storage_errors("written", path):
            try:
                file = _open_exclusive(path)
            except _Exists:
                return False
            try:
                with file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return True

    def update(self, name: str, data: bytes) -> bool:
        # In place: a full disk has no room for another file, and on NFS a file that was removed cannot be opened, even
        # where the folder is cached.
        path = self.path / name
        with _storage_errors("written", path):
            try:
                with path.open("r+b", buffering=0) as file:
                    file.write(data)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.ESTALE}:
                    return False
                raise
        return True

    @contextmanager
    def stream(self, name: str, length: int) -> Iterator[BinaryIO]:
        path = self.path / name
        with _storage_errors("written", path), _atomic_write(path) as partial, partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def copy(self, name: str, alias: str) -> None:
        path = self.path / alias
        with _storage_errors("written", path), _atomic_write(path) as partial:
            try:
                partial.hardlink_to(self.path / name)
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                shutil.copyfile(self.path / name, partial)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with _storage_errors("removed", self.path / name):
                (self.path / name).unlink(missing_ok=True)

    def clean(self, folder: str) -> None:
        path = self.path / folder
        with _storage_errors("cleaned", path):
            for entry in _files(path):
                if _is_partial(entry.name):
                    Path(entry.path).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        with suppress(OSError):
            (self.path / folder).rmdir()


def _listed(status: os.stat_result) -> ListedFile:
    return ListedFile(status.st_size, str(status.st_mtime_ns))


class _Exists(Exception):
    """There is a file of that name."""


def _open_exclusive(path: Path) -> BinaryIO:
    """Creates a file, and its folder, which another process may remove meanwhile.

    Raises:
        _Exists: if there is a file of that name.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return path.open("xb")
        except FileExistsError as error:
            raise _Exists from error
        except FileNotFoundError:
            continue


def _files(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from (entry for entry in entries if entry.is_file())
    except FileNotFoundError:
        return


def _partial(path: Path) -> Path:
    """Returns the hidden name that a file is first written under."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _is_partial(name: str) -> bool:
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.partial", name) is not None


@contextmanager
def _atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path; renames it to `path` on success, and removes it on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        # Also on success: renaming a hard link onto another one of the same file leaves both.
        partial.unlink(missing_ok=True)


_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES})

_RESUME_HINT = "then run the same command again: it resumes"

_CAUSES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", f"free some space there, {_RESUME_HINT}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space there, {_RESUME_HINT}"),
    errno.EROFS: ("the file system is read-only", "choose another output URI"),
    errno.ENOTDIR: ("a part of the path is a file", "choose another output URI"),
    errno.EEXIST: ("a file is in the way", "choose another output URI"),
    errno.EISDIR: ("a folder is in the way", "move it away, or choose another output URI"),
}


@contextmanager
def _storage_errors(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StorageFailed(
            f"{path} could not be {action}: user id {os.geteuid()} lacks permission",
            hint="choose another output URI, or change the permissions there",
        ) from error
    except OSError as error:
        cause, hint = _CAUSES.get(
            error.errno or 0, (error.strerror or str(error), f"repair the file system, {_RESUME_HINT}")
        )
        raise StorageFailed(f"{path} could not be {action}: {cause}", hint=hint) from error
