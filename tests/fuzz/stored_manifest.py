"""manifest.json as the next run of a job reads it: consistent, or rejected with InvalidSpec."""

from __future__ import annotations

from collections.abc import Iterator

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import Identity, ModelSpec, SamplerSpec, shards_of
from ddpm_inference.store.manifest import FileRecord, Manifest, ShardRecord, select
from tests.fuzz.documents import mutate

__all__ = ["fuzz_one", "mutate", "seeds"]

SHA256 = "ab" * 32


def seeds() -> Iterator[bytes]:
    identity = Identity(
        model_sha256=SHA256,
        model=ModelSpec(name="Unet", downs=(8, 16), time_emb_dim=2, img_size=8, time_embedding="step"),
        sampler=SamplerSpec(name="ddim", timesteps=10, steps=5, eta=0, schedule="linear", variance=None),
        seed=0,
        precision="fp32",
        batch_size=8,
        execution="folded",
        device="cpu",
        torch="2.10.0",
    )
    for n_samples in (1, 20):
        shards = [ShardRecord(first=it.first, last=it.last, bytes=9, sha256=SHA256) for it in shards_of(n_samples, 8)]
        files = {"samples.npy": FileRecord(bytes=9, sha256=SHA256)}
        yield Manifest.of(identity, n_samples, shards, files).model_dump_json().encode()


def fuzz_one(data: bytes) -> None:
    try:
        manifest = Manifest.parse(data, "manifest.json")
    except InvalidSpec:
        return
    assert sum(shard.size for shard in manifest.shards) == manifest.n_samples
    assert not select(manifest.shards, manifest.n_samples, manifest.identity.batch_size).missing
    assert manifest.fingerprint == manifest.identity.fingerprint
    assert Manifest.parse(manifest.model_dump_json(), "itself") == manifest
