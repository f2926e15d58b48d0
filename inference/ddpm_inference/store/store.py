"""The store of one job: its identity, its shards, its manifest, and what is made of them, under one output URI.

::

    job.json                       the Identity: what decides the pixels; written before anything else
    shards/<first>-<last>.npz      whole shards of that identity (see shard_file.py)
    samples.npy, grid.png          made of the shards
    manifest.json                  written last: the job is complete when it is there and accounts for N samples
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ddpm_inference.errors import InvalidSpec, OutputConflict, StorageFailed
from ddpm_inference.job import Identity, Shard
from ddpm_inference.store.manifest import FileRecord, Manifest, ShardRecord, superseded
from ddpm_inference.store.npy_file import npy_chunks, npy_length
from ddpm_inference.store.shard_file import Damaged, Samples, check_samples, decode, encode, most_bytes, sha256
from ddpm_inference.store.storage_backend import StorageBackend
from ddpm_inference.store.uri import backend_for

IDENTITY = "job.json"
MANIFEST = "manifest.json"
SHARDS = "shards"
DERIVED = ("samples.npy", "grid.png")

LARGEST_IDENTITY = 2**20
LARGEST_RECORD = 512
"""Bytes of a shard in a manifest, at most."""


class Scan(NamedTuple):
    """What a look at every stored shard found.

    Attributes:
        records: whole shards of the identity asked for, by range. Ranges may overlap: see `select`.
        warnings: one sentence for each file that is damaged or of another job; such a file is as good as missing.
    """

    records: list[ShardRecord]
    warnings: list[str]


@dataclass(frozen=True)
class Store:
    """Where the results of one job live. Holds no connection and pickles, so that workers can be given one.

    Every method may raise StorageFailed: full, read-only, forbidden, unreachable. What is stored stays whole.
    What others may have stored, or a server makes up, is read to no greater length than this program writes it.
    """

    place: StorageBackend

    @classmethod
    def open(cls, uri: str) -> Store:
        """The store at a path, a ``file://`` URI or an ``s3://bucket/prefix``. Touches nothing yet.

        Raises:
            InvalidSpec: for any other URI.
        """
        return cls(backend_for(uri))

    @property
    def uri(self) -> str:
        """Absolute path of the folder, or ``s3://bucket/prefix``."""
        return self.place.uri

    @property
    def reached_by_workers(self) -> bool:
        """Whether workers write their shards themselves; where not, they hand them to the driver."""
        return self.place.reached_by_workers

    def read_identity(self) -> Identity | None:
        """The identity of the job that lives here, or None if none does.

        Raises:
            OutputConflict: if there is a ``job.json`` that this program cannot have written.
        """
        data = self.place.read(IDENTITY, LARGEST_IDENTITY)
        if data is None:
            return None
        try:
            _refuse_longer(data, LARGEST_IDENTITY)
            return Identity.parse(data, f"{self.uri}/{IDENTITY}")
        except InvalidSpec as error:
            raise OutputConflict(error.message, hint=_WAYS_OUT) from error
        except Damaged as error:
            raise OutputConflict(f"{self.uri}/{IDENTITY} is not valid: {error}", hint=_WAYS_OUT) from error

    def claim(self, identity: Identity, *, overwrite: bool) -> None:
        """Makes the place this job's own: writes ``job.json``, or finds there what it would write.

        Also removes temporary files that broken off writes left. With `overwrite`, a former run's files go
        first: its manifest, shards, ``samples.npy``, ``grid.png`` and ``job.json``, and nothing else.

        Raises:
            OutputConflict: if another job lives here, or files are in the way that no ``job.json`` vouches for.
        """
        if overwrite:
            self._remove_run()
        there = self.read_identity()
        if there is None:
            self._refuse_strays()
            if not self.place.create(IDENTITY, _pretty(identity)):
                there = self.read_identity()
        if there is not None and there.fingerprint != identity.fingerprint:
            raise OutputConflict(
                f"{self.uri} holds the samples of another job: {'; '.join(identity.differences(there))}",
                hint=f"use the same flags as then, {_WAYS_OUT}",
            )
        for folder in ("", SHARDS):
            self.place.clean(folder)

    def finished(self, identity: Identity, n_samples: int) -> Manifest | None:
        """The manifest, if it accounts for at least N samples of this identity and all its shards are there.

        Looks at names and lengths only. A job that holds more than N samples is finished too,
        and stays as it is.
        """
        manifest = self.read_manifest()
        if manifest is None or manifest.fingerprint != identity.fingerprint or manifest.n_samples < n_samples:
            return None
        there = self.place.sizes(SHARDS)
        most = _most_of_a_shard(identity)
        whole = all(there.get(shard.name) == shard.bytes <= most for shard in manifest.shards)
        return manifest if whole else None

    def intact_files(self, manifest: Manifest) -> set[str]:
        """Names of the manifest's files (``samples.npy``, ``grid.png``) that are there in their length."""
        there = self.place.sizes("")
        return {name for name, file in manifest.files.items() if there.get(name) == file.bytes}

    def scan(self, identity: Identity) -> Scan:
        """Reads and checks every stored shard, one at a time."""
        scan = Scan([], [])
        shards = sorted(self._shards(), key=lambda shard: shard.name)
        most = _most_of_a_shard(identity)
        files = self.place.read_each((_shard_path(shard) for shard in shards), most)
        for shard, data in zip(shards, files, strict=True):
            if data is None:
                continue
            try:
                _refuse_longer(data, most)
                samples, fingerprint = decode(data, shard)
                if fingerprint != identity.fingerprint:
                    raise Damaged("it belongs to another job")
                if samples.shape[1:] != identity.model.image_shape:
                    raise Damaged(f"its samples have the shape {samples.shape[1:]}")
            except Damaged as error:
                scan.warnings.append(f"{self.uri}/{_shard_path(shard)} does not count: {error}")
            else:
                scan.records.append(_record(shard, data))
        return scan

    def write_shard(self, shard: Shard, samples: Samples, fingerprint: str) -> ShardRecord:
        """Stores a shard and says what is stored. May be called again, and by several at once: the first wins.

        A whole shard of the same job that is there already is kept, so that a manifest that names it stays
        true whoever comes late. A damaged one is replaced.

        Args:
            samples: float32 (shard.size, C, H, W) in [0, 1].

        Raises:
            ValueError: if the samples are anything else.
            OutputConflict: if another job has taken the place since.
        """
        check_samples(shard, samples)
        data = encode(shard, samples, fingerprint)
        path = _shard_path(shard)
        if self.place.create(path, data):
            return _record(shard, data)
        there = self.place.read(path, len(data))
        try:
            if there is not None and decode(there, shard).fingerprint == fingerprint:
                return _record(shard, there)
        except Damaged:
            pass
        owner = self.read_identity()
        if owner is not None and owner.fingerprint != fingerprint:
            raise OutputConflict(f"{self.uri} was taken by another job while this one ran", hint=_WAYS_OUT)
        self.place.write(path, data)
        return _record(shard, data)

    def read_shard(self, record: ShardRecord) -> Samples:
        """The samples of a stored shard, float32 (n, C, H, W) in [0, 1].

        Raises:
            StorageFailed: if it is gone or is not the one of the record.
        """
        path = _shard_path(record)
        data = self.place.read(path, record.bytes)
        if data is None:
            raise StorageFailed(f"{self.uri}/{path} is gone", hint=_SAMPLE_AGAIN)
        if sha256(data) != record.sha256:
            raise StorageFailed(
                f"{self.uri}/{path} is damaged: its sha256 is not the one on record", hint=_SAMPLE_AGAIN
            )
        try:
            return decode(data, record.shard).samples
        except Damaged as error:
            raise StorageFailed(f"{self.uri}/{path} is damaged: {error}", hint=_SAMPLE_AGAIN) from error

    def read_manifest(self) -> Manifest | None:
        """The manifest, or None if there is none. One that is not valid counts as none: it is written anew."""
        most = self._most_of_a_manifest()
        data = self.place.read(MANIFEST, most)
        if data is None:
            return None
        try:
            _refuse_longer(data, most)
            return Manifest.parse(data, f"{self.uri}/{MANIFEST}")
        except (Damaged, InvalidSpec):
            return None

    def manifest_sha256(self) -> str:
        """sha256 of ``manifest.json`` as it is stored.

        Raises:
            StorageFailed: if there is none.
        """
        data = self.place.read(MANIFEST, self._most_of_a_manifest())
        if data is None:
            raise StorageFailed(f"{self.uri}/{MANIFEST} is gone", hint="run the same command again to write it")
        return sha256(data)

    def write_manifest(self, manifest: Manifest) -> str:
        """Writes the manifest, which makes the job complete; then removes shards that a longer one superseded.

        Returns:
            sha256 of ``manifest.json``.
        """
        data = _pretty(manifest)
        self.place.write(MANIFEST, data)
        self.place.remove(_shard_path(shard) for shard in superseded(self._shards(), manifest))
        return sha256(data)

    def write_bytes(self, name: str, data: bytes) -> FileRecord:
        """Stores a small file, such as ``grid.png``."""
        self.place.write(name, data)
        return FileRecord(bytes=len(data), sha256=sha256(data))

    def write_npy(self, name: str, shape: tuple[int, ...], batches: Iterable[Samples]) -> FileRecord:
        """Stores one ``.npy`` of float32 from its rows, a batch at a time; memory holds one batch.

        Args:
            shape: (N, C, H, W) of the whole.
            batches: float32 (n, C, H, W) each, N rows in all.

        Raises:
            ValueError: if the batches are not what `shape` says. The file does not appear.
        """
        digest, length = hashlib.sha256(), npy_length(shape)
        with self.place.stream(name, length) as file:
            for chunk in npy_chunks(shape, batches):
                digest.update(chunk)
                file.write(chunk)
        return FileRecord(bytes=length, sha256=digest.hexdigest())

    def link_or_copy(self, name: str, alias: str) -> None:
        """Makes a stored file appear under a second name: a hard link where there are such, else a copy."""
        self.place.copy(name, alias)

    def _most_of_a_manifest(self) -> int:
        """One that is longer names shards that are not there."""
        return LARGEST_IDENTITY + LARGEST_RECORD * len(self._shards())

    def _shards(self) -> list[Shard]:
        return [shard for name in self.place.sizes(SHARDS) if (shard := Shard.from_name(name))]

    def _refuse_strays(self) -> None:
        top = self.place.sizes("")
        strays = [name for name in (MANIFEST, *DERIVED) if name in top]
        strays += [_shard_path(shard) for shard in self._shards()][:1]
        if strays:
            raise OutputConflict(
                f"{self.uri} holds {', '.join(strays)}, but no {IDENTITY} that says of which job",
                hint=_WAYS_OUT,
            )

    def _remove_run(self) -> None:
        # The manifest goes first, job.json last: broken off anywhere, this is the former job, unfinished.
        top = self.place.sizes("")
        self.place.remove(name for name in (MANIFEST, *DERIVED) if name in top)
        self.place.remove(_shard_path(shard) for shard in self._shards())
        self.place.remove(name for name in (IDENTITY,) if name in top)


_WAYS_OUT = "choose another output place, or give --overwrite to remove what that run left"
_SAMPLE_AGAIN = "remove that file and run the same command again: it does only what is missing"


def _most_of_a_shard(identity: Identity) -> int:
    return most_bytes(identity.batch_size, identity.model.image_shape)


def _refuse_longer(data: bytes, most: int) -> None:
    if len(data) > most:
        raise Damaged(f"it is longer than the {most:,} bytes that it can have")


def _shard_path(shard: Shard) -> str:
    return f"{SHARDS}/{shard.name}"


def _record(shard: Shard, data: bytes) -> ShardRecord:
    return ShardRecord(first=shard.first, last=shard.last, bytes=len(data), sha256=sha256(data))


def _pretty(document: Identity | Manifest) -> bytes:
    return (document.model_dump_json(indent=1) + "\n").encode()
