"""A shard of a pipeline's samples, from the identity to pixels in [0, 1], as diffusers' pipelines would draw them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.checkpoint.safetensors_file import as_array
from ddpm_inference.job import Identity, Job, ModelRequest, OutputRequest, SamplerRequest, Shard, UNet2DSpec
from ddpm_inference.models.families import family_of
from ddpm_inference.plan import resolve_identity
from ddpm_inference.sampling.scheduler_config import read_scheduler
from ddpm_inference.shard_sampler import ShardSampler
from tests.support.diffusers_chain import SEED, network_of, theirs

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
PIPELINES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RGBA, not square": ({"sample_size": (8, 12), "in_channels": 4, "out_channels": 4}, {}),
    "grey": ({"sample_size": (8, 8), "in_channels": 1, "out_channels": 1}, {"_class_name": "DDIMScheduler"}),
    "five channels": ({"sample_size": (8, 8), "in_channels": 5, "out_channels": 5}, {}),
    "classes": ({"sample_size": (8, 8), "num_class_embeds": 3}, {"variance_type": "fixed_large"}),
    "learned variance": ({"sample_size": (8, 8), "out_channels": 6}, {"variance_type": "learned_range"}),
    "no clamp": ({"sample_size": (8, 8)}, {"clip_sample": False, "prediction_type": "sample"}),
}


def identity_of(spec: UNet2DSpec, checkpoint: Checkpoint, batch_size: int) -> Identity:
    job = Job(
        model=ModelRequest(uri="x"),
        seed=SEED,
        sampler=SamplerRequest(steps=8),
        batch_size=batch_size,
        output=OutputRequest(uri="out"),
    )
    return resolve_identity(job, checkpoint, None, device="cpu", torch=torch.__version__)


@pytest.mark.parametrize(("fields", "config"), PIPELINES.values(), ids=PIPELINES)
def test_a_shard_has_the_pixels_of_the_pipeline(fields: dict[str, Any], config: dict[str, Any]) -> None:
    spec = UNet2DSpec.model_validate({**SMALL, **fields})
    config = {"_class_name": "DDPMScheduler", "num_train_timesteps": 40, **config}
    network = network_of(spec)
    weights = {key: as_array(value) for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in weights.items()} == family_of(spec).shapes(spec)
    checkpoint = Checkpoint(spec, None, weights, "0" * 64, (), read_scheduler(config, None))
    identity = identity_of(spec, checkpoint, batch_size=4)
    parsed = Identity.parse(identity.model_dump_json(), "job.json")
    assert parsed == identity
    assert parsed.fingerprint == identity.fingerprint
    samples = ShardSampler(checkpoint, parsed, threads=1).sample(Shard(first=0, last=2), lambda done, steps: None)
    expected = theirs(network, spec, config, identity.sampler, samples=4)[:3] / 2 + 0.5
    assert samples.shape == (3, *spec.image_shape)
    np.testing.assert_allclose(samples, expected.clamp(0, 1).numpy(), rtol=0, atol=1e-4)
