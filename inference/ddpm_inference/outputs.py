"""Writes the output files from the stored shards: samples.npy, grid.png, and last of all the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from ddpm_inference.image_grid import MAX_IMAGES, grid, png
from ddpm_inference.job import FILE_OF_FORMAT, Format, Identity
from ddpm_inference.store import FileRecord, Manifest, ShardRecord, Store
from ddpm_inference.store.shard_file import Samples

# The file names of the guide, as second names in a folder.
GUIDE_NAMES: dict[Format, str] = {"npy": "ray_samples_{time}_all.npy", "png": "ray_samples_{time}_grid.png"}


class WrittenManifest(NamedTuple):
    """The manifest, and the sha256 of its file."""

    manifest: Manifest
    manifest_sha256: str


def write_outputs(
    store: Store,
    identity: Identity,
    n_samples: int,
    records: Sequence[ShardRecord],
    formats: Sequence[Format],
    now: datetime,
) -> WrittenManifest:
    """Writes the files of a job whose shards are all stored, the manifest last. Holds one shard in memory.

    Args:
        records: the shards of samples 0 to N-1, in order.
        now: the time in the guide's file names, which only a folder gets.

    Raises:
        StorageFailed: if a shard does not match its record, or a file cannot be written.
    """
    files: dict[str, FileRecord] = {}
    if "npy" in formats:
        shape = (n_samples, *identity.model.image_shape)
        shards = (store.read_shard(record) for record in records)
        files[FILE_OF_FORMAT["npy"]] = store.write_npy(FILE_OF_FORMAT["npy"], shape, shards)
    if "png" in formats:
        files[FILE_OF_FORMAT["png"]] = store.write_bytes(FILE_OF_FORMAT["png"], png(grid(grid_samples(store, records))))
    if not store.writable_by_workers:
        # That is, if the store is a folder.
        for form in formats:
            store.link_or_copy(FILE_OF_FORMAT[form], GUIDE_NAMES[form].format(time=f"{now:%Y%m%d-%H%M}"))
    manifest = Manifest.of(identity, n_samples, records, files)
    return WrittenManifest(manifest, store.write_manifest(manifest))


def grid_samples(store: Store, records: Sequence[ShardRecord]) -> Samples:
    """Returns the samples that the grid shows, float32 (n, C, H, W), n at most `MAX_IMAGES`."""
    return np.concatenate([store.read_shard(record) for record in records if record.first < MAX_IMAGES])[:MAX_IMAGES]
