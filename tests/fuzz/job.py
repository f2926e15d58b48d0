"""The job document from the operator, up to its list of shards: parsed, or rejected with InvalidSpec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import Job, resolve_sampler, shard_count, shards_of
from tests.fuzz.documents import mutate

__all__ = ["fuzz_one", "mutate", "seeds"]


def seeds() -> Iterator[bytes]:
    yield b'{"model": {"uri": "builtin://mnist"}, "output": {"uri": "/output"}}'
    yield json.dumps(
        {
            "version": 1,
            "model": {"uri": "s3://b/k", "sha256": "ab" * 32, "name": "Unet", "downs": [8, 16], "time_emb_dim": 2},
            "n_samples": 100,
            "seed": 7,
            "sampler": {"name": "ddim", "eta": 0.5, "steps": 20, "timesteps": 500, "schedule": "cosine"},
            "precision": "bf16",
            "batch_size": 32,
            "device": "auto",
            "output": {"uri": "/output", "formats": ["npy"], "overwrite": True},
            "resources": {"workers": 4, "num_gpus_per_task": 0.25, "startup_timeout": 60},
        }
    ).encode()


def fuzz_one(data: bytes) -> None:
    try:
        job = Job.parse(data, "DDPM_JOB")
        sampler = resolve_sampler(job.sampler, None)
    except InvalidSpec:
        return
    assert Job.parse(job.model_dump_json(), "itself") == job
    assert 1 <= sampler.steps <= sampler.timesteps
    batch = job.batch_size or 1
    first_shards = list(islice(shards_of(job.n_samples, batch), 3))
    assert len(first_shards) == min(3, shard_count(job.n_samples, batch))
    assert first_shards[-1].last < job.n_samples
