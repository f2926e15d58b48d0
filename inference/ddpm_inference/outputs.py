"""Writes the output files from the stored shards: samples.npy, grid.png, and last of all the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    verify_lease: Callable[[], None] = lambda: None,
) -> WrittenManifest:
    """Writes the files of a job whose shards are all stored, and then the manifest. Holds one shard in memory.

    The dated copies of earlier versions are removed.

    Args:
        records: the shards of samples 0 to N-1, in order.
        now: the time in the guide's file names, which only a folder gets.
        verify_lease: called before the manifest is written; raises an error if another driver has taken over.

    Raises:
        StorageFailed: if a shard does not match its record, or a file cannot be written.
    """
    earlier_copies = store.dated_copies()
    files: dict[str, FileRecord] = {}
    if "npy" in formats:
        shape = (n_samples, *identity.model.image_shape)
        shards = (store.read_shard(record) for record in records)
        files[FILE_OF_FORMAT["npy"]] = store.write_npy(FILE_OF_FORMAT["npy"], shape, shards)
    if "png" in formats:
        files[FILE_OF_FORMAT["png"]] = store.write_bytes(FILE_OF_FORMAT["png"], png(grid(grid_samples(store, records))))
    copies = set()
    if not store.writable_by_workers:
        # That is, if the store is a folder.
        for form in formats:
            copy = GUIDE_NAMES[form].format(time=f"{now:%Y%m%d-%H%M}")
            store.link_or_copy(FILE_OF_FORMAT[form], copy)
            copies.add(copy)
    verify_lease()
    manifest = Manifest.of(identity, n_samples, records, files)
    written = WrittenManifest(manifest, store.write_manifest(manifest))
    # The copies of a shorter or damaged version would pass for the samples of this one.
    store.remove_dated_copies(earlier_copies - copies)
    store.write_verified(manifest, copies)
    return written


def grid_samples(store: Store, records: Sequence[ShardRecord]) -> Samples:
    """Returns the samples that the grid shows, float32 (n, C, H, W), n at most `MAX_IMAGES`."""
    return np.concatenate([store.read_shard(record) for record in records if record.first < MAX_IMAGES])[:MAX_IMAGES]
