"""Helpers for tests of the store: a small identity, recognisable samples, and a minimal run."""

from __future__ import annotations

import numpy as np

from ddpm_inference.job import Identity, ModelSpec, SamplerSpec, Shard
from ddpm_inference.store import Manifest, ShardRecord, Store, select
from ddpm_inference.store.shard_file import Samples


def an_identity(*, seed: int = 0, batch_size: int = 8, img_size: int = 4) -> Identity:
    return Identity(
        model_sha256="0" * 64,
        model=ModelSpec(name="Unet", downs=(8, 16), time_emb_dim=4, img_size=img_size, time_embedding="step"),
        sampler=SamplerSpec(name="ddim", timesteps=10, steps=5, eta=0, schedule="linear", variance=None),
        seed=seed,
        precision="fp32",
        batch_size=batch_size,
        execution="folded",
        device="cpu",
        torch="2.0",
    )


def samples_of(shard: Shard, identity: Identity) -> Samples:
    """Returns float32 (n, C, H, W) samples; sample i depends only on (seed, i), and no two of 4096 are equal."""
    index = np.arange(shard.first, shard.last + 1, dtype=np.float32)[:, None, None, None]
    pixels = np.linspace(0, 1, np.prod(identity.model.image_shape), dtype=np.float32)
    row = pixels.reshape(1, *identity.model.image_shape)
    return ((index + row + identity.seed) / np.float32(4096)).astype(np.float32)


def write_shards(store: Store, identity: Identity, shards: list[Shard]) -> list[ShardRecord]:
    return [store.write_shard(shard, samples_of(shard, identity), identity.fingerprint) for shard in shards]


def run(store: Store, identity: Identity, n_samples: int) -> Manifest:
    """Runs a job: initializes the store, resumes, samples the missing shards, writes samples.npy and the manifest."""
    store.initialize(identity, overwrite=False)
    complete = store.complete_manifest(identity, n_samples)
    if complete and store.intact_files(complete):
        return complete
    # An interrupted growth leaves a manifest without its files.
    n_samples = complete.n_samples if complete else n_samples
    usable, missing = select(store.scan(identity).records, n_samples, identity.batch_size)
    records = sorted(usable + write_shards(store, identity, missing), key=lambda record: record.first)
    shape = (n_samples, *identity.model.image_shape)
    npy = store.write_npy("samples.npy", shape, map(store.read_shard, records))
    manifest = Manifest.of(identity, n_samples, records, {"samples.npy": npy})
    store.write_manifest(manifest)
    return manifest


def stored_samples(store: Store, manifest: Manifest) -> Samples:
    """Reads all samples of a manifest, which checks every sha256."""
    return np.concatenate([store.read_shard(record) for record in manifest.shards])


def expected_samples(manifest: Manifest) -> Samples:
    return samples_of(Shard(first=0, last=manifest.n_samples - 1), manifest.identity)
