"""Interface of a storage backend, implemented by `Folder` and `Bucket`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class Writer(Protocol):
    """A file that is open for writing."""

    def write(self, data: bytes | memoryview, /) -> object: ...


MAX_VERSION_LENGTH = 200


class ListedFile(NamedTuple):
    """A file in a listing.

    Attributes:
        bytes: its size.
        version: changes when the content is written again: the modification time in ns, or the ETag.
    """

    bytes: int
    version: str


class StorageBackend(Protocol):
    """Files below one URI, by relative names with slashes. A file appears atomically.

    Every method raises StorageFailed, which names the failed action, its location, and its cause.
    """

    @property
    def uri(self) -> str: ...

    @property
    def writable_by_workers(self) -> bool:
        """Whether workers on other machines write to the same files."""

    def exists(self) -> bool:
        """Whether the folder exists; always true for a bucket, which has none."""

    def sizes(self, folder: str) -> dict[str, int]:
        """Lists names and sizes in bytes of the files directly in a folder ("" is the top), uncached.

        A missing folder is empty. Temporary files are not listed. A listing larger than any run's is an error.
        """

    def listing(self, folder: str) -> dict[str, ListedFile]:
        """Lists the same files with their versions."""

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Reads a file, or the first `max_bytes` + 1 bytes of a larger one. Returns None if there is no such file."""

    def read_each(self, names: Iterable[str], max_bytes: int) -> Iterator[bytes | None]:
        """Reads each file like `read`, in order; may read ahead."""

    def read_range(self, name: str, start: int, length: int) -> bytes | None:
        """Reads a part of a file, shorter if the file ends before. Returns None if there is no such file."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; replaces an existing one."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file unless it exists; returns whether it was written."""

    def reserve(self, name: str, data: bytes) -> bool:
        """Like `create`, but of several processes that reserve one name, on any machine, exactly one gets True.

        The file appears before its content: a reader may find it empty for a moment.
        """

    def update(self, name: str, data: bytes) -> bool:
        """Replaces the content of a small file that exists by content of the same length.

        Returns:
            False if the file does not exist, where the backend can tell without another request.
        """

    def stream(self, name: str, length: int) -> AbstractContextManager[Writer]:
        """Opens a file of about `length` bytes for writing in chunks.

        The file appears, or replaces an existing one, when the block ends without an error.
        """

    def copy(self, name: str, alias: str) -> None:
        """Makes the file `name` available as `alias` too, by a hard link or a copy."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; missing files are no error."""

    def clean(self, folder: str) -> None:
        """Removes the temporary files of interrupted writes from a folder."""

    def remove_folder(self, folder: str) -> None:
        """Removes a folder that is empty; another one is kept."""
