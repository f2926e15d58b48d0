"""Compares the stored files with the manifest, to find damage that came after the job was complete."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from ddpm_inference.errors import InvalidSpec, StorageFailed
from ddpm_inference.job import FILE_OF_FORMAT, Shard
from ddpm_inference.store.manifest import FileRecord, Manifest, ShardRecord
from ddpm_inference.store.shard_file import max_file_bytes, sha256
from ddpm_inference.store.storage_backend import ListedFile, StorageBackend
from ddpm_inference.store.verified import DATED_COPY, VERIFIED, Verified

SHARDS = "shards"

_CHUNK_BYTES = 16 * 2**20
_MAX_RECORD_BYTES = 512
"""Of one file in ``verified.json``."""


class DamagedFile(NamedTuple):
    """A file that is not what the manifest says.

    Attributes:
        name: relative to the output URI.
        problem: ``is missing``, or ``is damaged: …``.
        shard: its range, if it is a shard.
    """

    name: str
    problem: str
    shard: Shard | None


class Inspection(NamedTuple):
    """Result of comparing every file of a manifest.

    Attributes:
        damaged: shards first, in order.
        hashed: the number of files that were read; the others have not changed since they were last hashed.
    """

    damaged: list[DamagedFile]
    hashed: int


def inspect(backend: StorageBackend, manifest: Manifest, *, hash_all: bool) -> Inspection:
    """Compares the files of a manifest with their sizes and sha256. Holds one shard or 16 MiB of a file in memory.

    Args:
        hash_all: also hash files whose size and modification time or ETag are those of the last time. Bits that rot on
            a disk change neither.

    Raises:
        StorageFailed: if the files cannot be read.
    """
    listing = list_files(backend)
    verified = Verified(files={}) if hash_all else read_verified(backend)
    max_shard_bytes = max_file_bytes(manifest.identity.batch_size, manifest.shape)
    damaged: list[DamagedFile] = []
    changed: list[tuple[str, FileRecord | ShardRecord]] = []
    for name, record in _records(manifest):
        listed, shard = listing.get(name), record.shard if isinstance(record, ShardRecord) else None
        if listed is None:
            damaged.append(DamagedFile(name, "is missing", shard))
        elif listed.bytes != record.bytes:
            problem = f"is damaged: it has {listed.bytes:,} bytes, not the {record.bytes:,} of the manifest"
            damaged.append(DamagedFile(name, problem, shard))
        elif shard is not None and record.bytes > max_shard_bytes:
            problem = f"is damaged: it is larger than the maximum of {max_shard_bytes:,} bytes"
            damaged.append(DamagedFile(name, problem, shard))
        elif not verified.covers(name, record, listed):
            changed.append((name, record))
    for (name, record), digest in zip(changed, _digests(backend, changed), strict=True):
        if digest != record.sha256:
            shard = record.shard if isinstance(record, ShardRecord) else None
            damaged.append(DamagedFile(name, "is damaged: its sha256 is not that of the manifest", shard))
    # Shards have numeric names, so that a sort puts them in order.
    damaged.sort(key=lambda file: (file.shard is None, file.name))
    return Inspection(damaged, len(changed))


def list_files(backend: StorageBackend) -> dict[str, ListedFile]:
    """Lists the stored files by name, those of ``shards/`` included."""
    shards = {f"{SHARDS}/{name}": file for name, file in backend.listing(SHARDS).items()}
    return backend.listing("") | shards


def read_verified(backend: StorageBackend) -> Verified:
    """Returns the record of the last verification; an empty one if there is none, or it is invalid."""
    max_bytes = 2**20 + _MAX_RECORD_BYTES * len(backend.sizes(SHARDS))
    with suppress(InvalidSpec, StorageFailed):
        data = backend.read(VERIFIED, max_bytes)
        if data is not None and len(data) <= max_bytes:
            return Verified.parse(data, VERIFIED)
    return Verified(files={})


def write_verified(backend: StorageBackend, manifest: Manifest, copies: Iterable[str]) -> None:
    """Records that every file of a manifest has its content now.

    Only saves time, so a store that cannot be written to is no error.
    """
    with suppress(StorageFailed):
        record = Verified.of(_records(manifest), list_files(backend), copies)
        backend.write(VERIFIED, (record.model_dump_json() + "\n").encode())


def dated_copies(backend: StorageBackend) -> set[str]:
    """Returns the dated copies of the run that is stored: those it recorded, and those equal to its output files.

    A file with such a name and another content may be of another program, and is not ours to remove.
    """
    top = backend.sizes("")
    copies = {name for name in read_verified(backend).copies if name in top}
    for output in FILE_OF_FORMAT.values():
        suffix = output.rpartition(".")[2]
        same_size = [
            name
            for name, size in top.items()
            if re.fullmatch(DATED_COPY, name)
            and name.endswith(suffix)
            and name not in copies
            and size == top.get(output)
        ]
        if same_size:
            digest = _digest(backend, output, top[output])
            copies |= {name for name in same_size if _digest(backend, name, top[output]) == digest}
    return copies


def _records(manifest: Manifest) -> Iterator[tuple[str, FileRecord | ShardRecord]]:
    yield from ((f"{SHARDS}/{record.name}", record) for record in manifest.shards)
    yield from manifest.files.items()


def _digests(backend: StorageBackend, records: list[tuple[str, FileRecord | ShardRecord]]) -> Iterator[str | None]:
    """Yields the sha256 of each file, or None if it is gone; shards come before other files."""
    shards = [(name, record.bytes) for name, record in records if isinstance(record, ShardRecord)]
    contents = backend.read_each((name for name, _ in shards), max((size for _, size in shards), default=0))
    yield from (None if data is None else sha256(data) for data in contents)
    yield from (_digest(backend, name, record.bytes) for name, record in records[len(shards) :])


def _digest(backend: StorageBackend, name: str, length: int) -> str | None:
    """Returns the sha256 of the first `length` bytes of a file, or None if there is no such file."""
    digest = hashlib.sha256()
    for start in range(0, length, _CHUNK_BYTES):
        data = backend.read_range(name, start, min(_CHUNK_BYTES, length - start))
        if data is None:
            return None
        digest.update(data)
    return digest.hexdigest()
