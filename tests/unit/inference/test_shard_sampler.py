"""Drawing shards on the CPU: the bits of a sample depend only on its index."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import Incomplete, OutOfMemory, ResourcesUnavailable
from ddpm_inference.job import Identity, ModelName, ModelSpec, SamplerName, SamplerSpec, Shard
from ddpm_inference.models import build
from ddpm_inference.shard_sampler import ShardSampler
from ddpm_inference.store.shard_file import Samples

BATCH = 16


def tiny(name: ModelName = "Unet") -> Checkpoint:
    spec = ModelSpec(name=name, downs=(4, 8), time_emb_dim=4, img_size=8, time_embedding="step")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = {key: value.numpy() for key, value in build(spec).state_dict().items()}
    return Checkpoint(spec, None, weights, "1" * 64)


def identity(checkpoint: Checkpoint, sampler: SamplerName = "ddim", **fields: object) -> Identity:
    spec = SamplerSpec(
        name=sampler,
        timesteps=20,
        steps=4,
        eta=0.0,
        schedule="linear",
        variance="large" if sampler == "ddpm" else None,
    )
    return Identity.model_validate(
        {
            "model_sha256": checkpoint.sha256,
            "model": checkpoint.spec,
            "sampler": spec,
            "seed": 3,
            "precision": "fp32",
            "batch_size": BATCH,
            "execution": "folded",
            "device": "cpu",
            "torch": torch.__version__,
            **fields,
        }
    )


def sample(sampler: ShardSampler, first: int, last: int) -> Samples:
    return sampler.sample(Shard(first=first, last=last), lambda done, steps: None)


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
@pytest.mark.parametrize("chain", ["ddpm", "ddim", "dpmpp"])
def test_a_short_shard_has_the_bits_of_a_full_one(name: ModelName, chain: SamplerName) -> None:
    checkpoint = tiny(name)
    sampler = ShardSampler(checkpoint, identity(checkpoint, chain), threads=1)
    whole = sample(sampler, 16, 31)
    assert whole.shape == (16, 1, 8, 8)
    assert whole.dtype == np.float32
    assert sample(sampler, 16, 18).tobytes() == whole[:3].tobytes()
    assert len(np.unique(whole.reshape(16, -1), axis=0)) == 16
    assert whole.min() >= 0 <= whole.max() <= 1


def test_a_new_sampler_draws_the_same_bits() -> None:
    """Also after other shards, and with another number of threads."""
    checkpoint = tiny()
    one = ShardSampler(checkpoint, identity(checkpoint), threads=1)
    expected = sample(one, 32, 47)
    sample(one, 0, 15)
    two = ShardSampler(checkpoint, identity(checkpoint), threads=2)
    assert sample(two, 32, 47).tobytes() == expected.tobytes()
    assert sample(one, 32, 47).tobytes() == expected.tobytes()


def test_progress_is_reported_every_step() -> None:
    checkpoint = tiny()
    seen: list[tuple[int, int]] = []
    sampler = ShardSampler(checkpoint, identity(checkpoint), threads=1)
    sampler.sample(Shard(first=0, last=0), lambda done, steps: seen.append((done, steps)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_network_that_overflows_is_an_error() -> None:
    checkpoint = tiny()
    checkpoint.weights["bnorm_out.weight"][:] = np.float32(3e38)
    checkpoint.weights["bnorm_out.bias"][:] = np.float32(3e38)
    checkpoint.weights["out_conv.weight"][:, ::2] = np.float32(3e38)
    checkpoint.weights["out_conv.weight"][:, 1::2] = np.float32(-3e38)
    sampler = ShardSampler(checkpoint, identity(checkpoint), threads=1)
    with pytest.raises(Incomplete, match="samples 16 to 20 are NaN"):
        sample(sampler, 16, 20)


def test_another_torch_version_is_refused() -> None:
    checkpoint = tiny()
    with pytest.raises(ResourcesUnavailable, match=r"this run uses torch 1\.0"):
        ShardSampler(checkpoint, identity(checkpoint, torch="1.0"), threads=1)


def test_a_gpu_invisible_to_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    checkpoint = tiny()
    with pytest.raises(ResourcesUnavailable, match="does not see it"):
        ShardSampler(checkpoint, identity(checkpoint, device="cuda"), threads=1)


def test_a_batch_that_does_not_fit_is_out_of_memory() -> None:
    """A batch of 2^16 images of 1024 x 1024 needs 256 GiB for x_T alone."""
    spec = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=1024, time_embedding="step")
    weights = {key: value.numpy() for key, value in build(spec).state_dict().items()}
    checkpoint = Checkpoint(spec, None, weights, "2" * 64)
    sampler = ShardSampler(checkpoint, identity(checkpoint, batch_size=65_536), threads=1)
    with pytest.raises(OutOfMemory, match="a batch of 65536 does not fit"):
        sample(sampler, 0, 65_535)
