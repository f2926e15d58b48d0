"""What is made of the shards at the end: samples.npy, grid.png, the names the guide's users know, the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np

from ddpm_inference.image_grid import MAX_IMAGES, grid, png
from ddpm_inference.job import Format, Identity
from ddpm_inference.store import FileRecord, Manifest, ShardRecord, Store
from ddpm_inference.store.shard_file import Samples

FILES: dict[Format, str] = {"npy": "samples.npy", "png": "grid.png"}
GUIDE_NAMES: dict[Format, str] = {"npy": "ray_samples_{time}_all.npy", "png": "ray_samples_{time}_grid.png"}


class Finished(NamedTuple):
    """The manifest that was written, and the sha256 of its file."""

    manifest: Manifest
    manifest_sha256: str


def finish(
    store: Store,
    identity: Identity,
    n_samples: int,
    records: Sequence[ShardRecord],
    formats: Sequence[Format],
    now: datetime,
) -> Finished:
    """Makes the files of a job whose shards are all there, the manifest last of all. Memory holds one shard.

    Args:
        records: the shards of samples 0 to N-1, in order.
        now: goes into the guide's file names, which only a folder gets.

    Raises:
        StorageFailed: if a shard is not what its record says, or a file cannot be written.
    """
    files: dict[str, FileRecord] = {}
    if "npy" in formats:
        shape = (n_samples, *identity.model.image_shape)
        shards = (store.read_shard(record) for record in records)
        files[FILES["npy"]] = store.write_npy(FILES["npy"], shape, shards)
    if "png" in formats:
        files[FILES["png"]] = store.write_bytes(FILES["png"], png(grid(first_samples(store, records))))
    if not store.reached_by_workers:
        for form in formats:
            store.link_or_copy(FILES[form], GUIDE_NAMES[form].format(time=f"{now:%Y%m%d-%H%M}"))
    manifest = Manifest.of(identity, n_samples, records, files)
    return Finished(manifest, store.write_manifest(manifest))


def first_samples(store: Store, records: Sequence[ShardRecord]) -> Samples:
    """The samples that the grid shows, float32 (n, C, H, W)."""
    return np.concatenate([store.read_shard(record) for record in records if record.first < MAX_IMAGES])[:MAX_IMAGES]
