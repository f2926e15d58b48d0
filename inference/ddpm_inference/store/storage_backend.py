"""What the store needs of a place where files can lie. `Folder` and `Bucket` are the two there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Writer(Protocol):
    def write(self, data: bytes | memoryview, /) -> object: ...


class StorageBackend(Protocol):
    """Files below one URI, by relative names with slashes. A file appears whole or not at all.

    Every method raises StorageFailed, which says what could not be done, where, and why.
    """

    @property
    def uri(self) -> str: ...

    @property
    def reached_by_workers(self) -> bool:
        """Whether it is the same place on every machine."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and lengths in bytes of the files directly in a folder ("" is the top), from one fresh listing.

        Nothing there is an empty answer. Temporary files are not listed. More files than any run has are an error.
        """

    def read(self, name: str, most: int) -> bytes | None:
        """A whole file, or None if there is none. Of one that is longer than `most` bytes come `most` + 1."""

    def read_each(self, names: Iterable[str], most: int) -> Iterator[bytes | None]:
        """Like `read` for each name, in order; a few are read ahead where that is faster."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, in place of the one that is there."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file if there is none of that name; else writes nothing and returns False."""

    def stream(self, name: str, length: int) -> AbstractContextManager[Writer]:
        """A file of about `length` bytes, written bit by bit.

        It appears, in place of the one there, when the block ends without an error.
        """

    def copy(self, name: str, alias: str) -> None:
        """Makes the content of `name` appear as `alias` too."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; one that is not there is no error."""

    def clean(self, folder: str) -> None:
        """Removes the temporary files that broken off writes left in a folder."""
