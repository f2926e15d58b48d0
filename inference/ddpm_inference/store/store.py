"""The store of one job: its identity, shards, output files and manifest, under one output URI.

::

    job.json                       the Identity (not the Job), which decides the bits of every sample; written first
    shards/<first>-<last>.npz      shards of that identity (see shard_file.py)
    samples.npy, grid.png          derived from the shards
    manifest.json                  written last: the job is complete when it accounts for N samples
    lease/                         the driver that writes here now; see lease.py
    verified.json                  times or ETags of these files when they were last hashed (see verified.py)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from ddpm_inference.errors import InvalidSpec, OutputConflict, StorageFailed
from ddpm_inference.job import FILE_OF_FORMAT, Hardware, Identity, Shard, shards_of
from ddpm_inference.store.integrity import SHARDS, Inspection, dated_copies, inspect, write_verified
from ddpm_inference.store.manifest import FileRecord, Manifest, ShardRecord, superseded
from ddpm_inference.store.npy_file import npy_chunks, npy_length
from ddpm_inference.store.shard_file import (
    Damaged,
    Samples,
    check_samples,
    decode,
    encode,
    file_bytes,
    max_file_bytes,
    sha256,
)
from ddpm_inference.store.storage_backend import StorageBackend
from ddpm_inference.store.uri import backend_for
from ddpm_inference.store.usable import require_folder, require_writable
from ddpm_inference.store.verified import VERIFIED

IDENTITY = "job.json"
MANIFEST = "manifest.json"
OUTPUT_FILES = tuple(FILE_OF_FORMAT.values())

MAX_IDENTITY_BYTES = 2**20
MAX_RECORD_BYTES = 1536
"""Of one shard in a manifest."""


class Scan(NamedTuple):
    """Result of reading every stored shard.

    Attributes:
        records: intact shards of the requested identity, by range. Ranges may overlap: see `select`.
        warnings: one sentence for each file that is damaged or of another job; such files count as missing.
    """

    records: list[ShardRecord]
    warnings: list[str]


@dataclass(frozen=True)
class Store:
    """The results of one job. Holds no connection, so it can be pickled to workers.

    Every method may raise StorageFailed (full, read-only, forbidden, unreachable); stored files stay intact. Files may
    come from an untrusted writer, so reads are limited to the size that this program would write. Below, "another job"
    is one with another fingerprint.
    """

    backend: StorageBackend

    @classmethod
    def open(cls, uri: str) -> Store:
        """Returns the store at a path, a ``file://`` URI or ``s3://bucket/prefix``. Performs no I/O.

        Raises:
            InvalidSpec: for any other URI.
        """
        return cls(backend_for(uri))

    @property
    def uri(self) -> str:
        """The absolute path of the folder, or ``s3://bucket/prefix``."""
        return self.backend.uri

    @property
    def writable_by_workers(self) -> bool:
        """Whether workers write their shards themselves; otherwise they send them to the driver."""
        return self.backend.writable_by_workers

    def require_folder(self) -> None:
        """Raises OutputConflict if a file is where the folder, or one of its parents, has to be."""
        require_folder(self.backend)

    def require_writable(self) -> None:
        """Raises UnwritableOutput if the folder cannot be written or made. A bucket is not checked."""
        require_writable(self.backend)

    def read_identity(self) -> Identity | None:
        """Returns the identity of the stored job, or None if there is no ``job.json``.

        Raises:
            OutputConflict: if ``job.json`` is invalid.
        """
        data = self.backend.read(IDENTITY, MAX_IDENTITY_BYTES)
        if data is None:
            return None
        try:
            _check_size(data, MAX_IDENTITY_BYTES)
            return Identity.parse(data, f"{self.uri}/{IDENTITY}")
        except InvalidSpec as error:
            raise OutputConflict(error.message, hint=_CONFLICT_HINT) from error
        except Damaged as error:
            raise OutputConflict(f"{self.uri}/{IDENTITY} is not valid: {error}", hint=_CONFLICT_HINT) from error

    def recover_identity(self) -> Identity | None:
        """Returns the identity of the stored job: that of the manifest, if ``job.json`` is another, or lost or damaged.

        In a manifest the fingerprint is a checksum of the identity; ``job.json`` has none.

        Raises:
            OutputConflict: if ``job.json`` is invalid, and there is no manifest.
        """
        manifest = self.read_manifest()
        return self.read_identity() if manifest is None else manifest.identity

    def restore_identity(self, identity: Identity) -> bool:
        """Writes ``job.json`` again if it is lost or damaged; returns whether it was."""
        with suppress(OutputConflict):
            stored = self.read_identity()
            if stored is not None and stored.fingerprint == identity.fingerprint:
                return False
        self.backend.write(IDENTITY, _to_json(identity))
        return True

    def initialize(self, identity: Identity, *, overwrite: bool) -> None:
        """Prepares the store for a job: writes ``job.json``, or checks that the existing one is of the same job.

        Also removes temporary files of interrupted writes. With `overwrite`, first removes the files of an earlier
        run: its manifest, shards, ``samples.npy``, ``grid.png``, their dated copies, ``verified.json`` and
        ``job.json``, and nothing else.

        Raises:
            OutputConflict: if another job is stored here, or there are results without a ``job.json``.
        """
        if overwrite:
            self._remove_run()
        stored = self.read_identity()
        if stored is None:
            self._refuse_unidentified_results()
            if not self.backend.create(IDENTITY, _to_json(identity)):
                stored = self.read_identity()
        if stored is not None and stored.fingerprint != identity.fingerprint:
            raise OutputConflict(
                f"{self.uri} holds the samples of another job: {'; '.join(identity.differences(stored))}",
                hint=f"use the flags of that job, {_CONFLICT_HINT}",
            )
        for folder in ("", SHARDS):
            self.backend.clean(folder)

    def complete_manifest(self, identity: Identity, n_samples: int) -> Manifest | None:
        """Returns the manifest if it accounts for at least N samples of this identity and all its shards are stored.

        Checks names and sizes only. A job with more than N samples is complete too, and is not changed.
        """
        manifest = self.read_manifest()
        if manifest is None or manifest.fingerprint != identity.fingerprint or manifest.n_samples < n_samples:
            return None
        sizes = self.backend.sizes(SHARDS)
        max_bytes = _max_shard_bytes(identity)
        complete = all(sizes.get(shard.name) == shard.bytes <= max_bytes for shard in manifest.shards)
        return manifest if complete else None

    def intact_files(self, manifest: Manifest) -> set[str]:
        """Returns the names of the manifest's files (``samples.npy``, ``grid.png``) that are stored with their size."""
        sizes = self.backend.sizes("")
        return {name for name, file in manifest.files.items() if sizes.get(name) == file.bytes}

    def inspect(self, manifest: Manifest, *, hash_all: bool) -> Inspection:
        """Compares every file of a manifest with it; see `integrity.inspect`."""
        return inspect(self.backend, manifest, hash_all=hash_all)

    def dated_copies(self) -> set[str]:
        """Returns the names of the dated copies that this run made; see `integrity.dated_copies`."""
        return dated_copies(self.backend)

    def remove_dated_copies(self, names: Iterable[str]) -> None:
        """Removes dated copies by name."""
        self.backend.remove(names)

    def write_verified(self, manifest: Manifest, copies: Iterable[str]) -> None:
        """Records that every file of the manifest has its content now, and the names of the dated copies."""
        write_verified(self.backend, manifest, copies)

    def remove_shards(self, shards: Iterable[Shard]) -> None:
        """Removes damaged shards, so that `write_shard` does not keep them."""
        self.backend.remove(_shard_path(shard) for shard in shards)

    def shards(self) -> set[Shard]:
        """Returns the ranges of all files that are named like a shard; their content is not checked."""
        return set(self._shards())

    def count_samples(self, identity: Identity, n_samples: int) -> int:
        """Counts those of samples 0 to N-1 whose shard is stored with the size of a whole one. Reads no content."""
        stored = self.backend.sizes(SHARDS)
        size_of = cache(lambda size: file_bytes(size, identity.model.image_shape, identity.fingerprint))
        return sum(
            shard.size
            for shard in shards_of(n_samples, identity.batch_size)
            # The file of a shard that other hardware drew is longer by the member that says so.
            if 0 <= stored.get(shard.name, 0) - size_of(shard.size) <= MAX_RECORD_BYTES
        )

    def scan(self, identity: Identity) -> Scan:
        """Reads and checks every stored shard, one at a time."""
        scan = Scan([], [])
        shards = sorted(self._shards(), key=lambda shard: shard.name)
        max_bytes = _max_shard_bytes(identity)
        files = self.backend.read_each((_shard_path(shard) for shard in shards), max_bytes)
        for shard, data in zip(shards, files, strict=True):
            if data is None:
                continue
            try:
                _check_size(data, max_bytes)
                samples, fingerprint, hardware = decode(data, shard)
                if fingerprint != identity.fingerprint:
                    raise Damaged("it belongs to another job")
                if samples.shape[1:] != identity.model.image_shape:
                    raise Damaged(f"its samples have the shape {samples.shape[1:]}")
            except Damaged as error:
                scan.warnings.append(f"{self.uri}/{_shard_path(shard)} is ignored: {error}")
            else:
                scan.records.append(_record(shard, data, hardware))
        return scan

    def write_shard(
        self, shard: Shard, samples: Samples, fingerprint: str, hardware: Hardware | None = None
    ) -> ShardRecord:
        """Stores a shard and returns its record. Retries and concurrent writers are allowed: the first one wins.

        An intact shard of the same job is kept, so a manifest that lists it stays valid despite late writers. A
        damaged one is replaced.

        Args:
            samples: float32 (shard.size, C, H, W) in [0, 1].
            hardware: that drew them, if it is not the identity's.

        Raises:
            ValueError: if the samples are anything else.
            OutputConflict: if another job has overwritten this one since.
        """
        check_samples(shard, samples)
        data = encode(shard, samples, fingerprint, hardware)
        path = _shard_path(shard)
        if self.backend.create(path, data):
            return _record(shard, data, hardware)
        # The stored file may name hardware, and this one not.
        stored = self.backend.read(path, len(data) + MAX_RECORD_BYTES)
        try:
            if stored is not None and (contents := decode(stored, shard)).fingerprint == fingerprint:
                return _record(shard, stored, contents.hardware)
        except Damaged:
            pass
        owner = self.read_identity()
        if owner is not None and owner.fingerprint != fingerprint:
            raise OutputConflict(f"{self.uri} was overwritten by another job while this one ran", hint=_CONFLICT_HINT)
        self.backend.write(path, data)
        return _record(shard, data, hardware)

    def read_shard(self, record: ShardRecord) -> Samples:
        """Reads the samples of a stored shard, float32 (n, C, H, W) in [0, 1].

        Raises:
            StorageFailed: if it is missing or does not match its record.
        """
        path = _shard_path(record)
        data = self.backend.read(path, record.bytes)
        if data is None:
            raise StorageFailed(f"{self.uri}/{path} is missing", hint=_RESAMPLE_HINT)
        if sha256(data) != record.sha256:
            raise StorageFailed(
                f"{self.uri}/{path} is damaged: its sha256 does not match its record", hint=_RESAMPLE_HINT
            )
        try:
            return decode(data, record.shard).samples
        except Damaged as error:
            raise StorageFailed(f"{self.uri}/{path} is damaged: {error}", hint=_RESAMPLE_HINT) from error

    def read_manifest(self) -> Manifest | None:
        """Returns the manifest, or None if it is missing or invalid: an invalid one counts as missing."""
        max_bytes = self._max_manifest_bytes()
        data = self.backend.read(MANIFEST, max_bytes)
        if data is None:
            return None
        try:
            _check_size(data, max_bytes)
            return Manifest.parse(data, f"{self.uri}/{MANIFEST}")
        except (Damaged, InvalidSpec):
            return None

    def manifest_sha256(self) -> str:
        """Returns the sha256 of the stored ``manifest.json``.

        Raises:
            StorageFailed: if it is missing.
        """
        data = self.backend.read(MANIFEST, self._max_manifest_bytes())
        if data is None:
            raise StorageFailed(f"{self.uri}/{MANIFEST} is missing", hint="run the same command again to write it")
        return sha256(data)

    def write_manifest(self, manifest: Manifest) -> str:
        """Writes the manifest, which completes the job; then removes short shards replaced by longer ones.

        Returns:
            sha256 of ``manifest.json``.
        """
        data = _to_json(manifest)
        self.backend.write(MANIFEST, data)
        self.backend.remove(_shard_path(shard) for shard in superseded(self._shards(), manifest))
        return sha256(data)

    def write_bytes(self, name: str, data: bytes) -> FileRecord:
        """Stores a small file, such as ``grid.png``."""
        self.backend.write(name, data)
        return FileRecord(bytes=len(data), sha256=sha256(data))

    def write_npy(self, name: str, shape: tuple[int, ...], batches: Iterable[Samples]) -> FileRecord:
        """Stores a float32 ``.npy`` file from its rows, with one batch in memory at a time.

        Args:
            shape: (N, C, H, W) of the whole file.
            batches: float32 (n, C, H, W) each, N rows in all.

        Raises:
            ValueError: if the batches do not match `shape`; nothing is stored.
        """
        digest, length = hashlib.sha256(), npy_length(shape)
        with self.backend.stream(name, length) as file:
            for chunk in npy_chunks(shape, batches):
                digest.update(chunk)
                file.write(chunk)
        return FileRecord(bytes=length, sha256=digest.hexdigest())

    def link_or_copy(self, name: str, alias: str) -> None:
        """Makes a stored file available under a second name, by a hard link where possible, else a copy."""
        self.backend.copy(name, alias)

    def _max_manifest_bytes(self) -> int:
        """Returns an upper bound for the size of a manifest of the stored shards."""
        return MAX_IDENTITY_BYTES + MAX_RECORD_BYTES * len(self._shards())

    def _shards(self) -> list[Shard]:
        return [shard for name in self.backend.sizes(SHARDS) if (shard := Shard.from_name(name))]

    def _refuse_unidentified_results(self) -> None:
        top = self.backend.sizes("")
        results = [name for name in (MANIFEST, *OUTPUT_FILES) if name in top]
        results += [_shard_path(shard) for shard in self._shards()][:1]
        if results:
            raise OutputConflict(
                f"{self.uri} contains {', '.join(results)}, but no {IDENTITY} to identify their job",
                hint=_CONFLICT_HINT,
            )

    def _remove_run(self) -> None:
        # The manifest first, job.json last: if interrupted, this is still the earlier job, incomplete. The dated copies
        # before the files that identify them.
        top = self.backend.sizes("")
        self.backend.remove(name for name in (MANIFEST,) if name in top)
        self.backend.remove(sorted(self.dated_copies()))
        self.backend.remove(name for name in (*OUTPUT_FILES, VERIFIED) if name in top)
        self.backend.remove(_shard_path(shard) for shard in self._shards())
        self.backend.remove(name for name in (IDENTITY,) if name in top)


_CONFLICT_HINT = "choose another output URI, or pass --overwrite to remove the files of that job"
_RESAMPLE_HINT = "the next run draws it again"


def _max_shard_bytes(identity: Identity) -> int:
    return max_file_bytes(identity.batch_size, identity.model.image_shape)


def _check_size(data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise Damaged(f"it is larger than the maximum of {max_bytes:,} bytes")


def _shard_path(shard: Shard) -> str:
    return f"{SHARDS}/{shard.name}"


def _record(shard: Shard, data: bytes, hardware: Hardware | None) -> ShardRecord:
    return ShardRecord(first=shard.first, last=shard.last, bytes=len(data), sha256=sha256(data), hardware=hardware)


def _to_json(document: Identity | Manifest) -> bytes:
    return (document.model_dump_json(indent=1) + "\n").encode()
