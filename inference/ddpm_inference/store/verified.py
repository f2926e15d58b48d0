"""``verified.json``: size, modification time or ETag, and sha256 of each file when its content was last known.

A run hashes only files that have changed since. The record depends on the day and the machine, so it is not part of the
manifest, and nothing depends on it: without it every file is hashed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from ddpm_inference.job import Sha256, StrictModel
from ddpm_inference.store.manifest import FileRecord, ShardRecord
from ddpm_inference.store.storage_backend import MAX_VERSION_LENGTH, ListedFile

VERIFIED = "verified.json"

DATED_COPY = r"ray_samples_\d{8}-\d{4}_(all\.npy|grid\.png)"
"""Second names of samples.npy and grid.png, as in the original guide. No other name in a record is ever removed."""


class VerifiedFile(StrictModel):
    """A file whose content was known: its sha256, and how the backend listed it then."""

    bytes: Annotated[int, Field(ge=0)]
    version: Annotated[str, Field(max_length=MAX_VERSION_LENGTH)]
    sha256: Sha256


class Verified(StrictModel):
    """The files of a run as they were last verified.

    Attributes:
        files: by name, such as ``shards/000000000-000000031.npz``.
        copies: names of the dated copies that the run made.
    """

    version: Literal[1] = 1
    files: dict[str, VerifiedFile]
    copies: tuple[Annotated[str, Field(pattern=f"^{DATED_COPY}$")], ...] = ()

    def covers(self, name: str, record: FileRecord | ShardRecord, listed: ListedFile) -> bool:
        """Returns whether a file had the content of its record, and has not changed since."""
        return self.files.get(name) == VerifiedFile(bytes=record.bytes, version=listed.version, sha256=record.sha256)

    @classmethod
    def of(
        cls,
        records: Iterable[tuple[str, FileRecord | ShardRecord]],
        listing: dict[str, ListedFile],
        copies: Iterable[str],
    ) -> Verified:
        """Creates the record of files whose content has just been verified."""
        files = {
            name: VerifiedFile(bytes=record.bytes, version=listing[name].version, sha256=record.sha256)
            for name, record in records
            if name in listing and listing[name].bytes == record.bytes
        }
        return cls(files=files, copies=tuple(sorted(copies)))
