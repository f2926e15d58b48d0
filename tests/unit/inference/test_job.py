"""The Job, the values chosen where it leaves them open, the fingerprint, and the shards."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import (
    Identity,
    Job,
    ModelRequest,
    ModelSpec,
    OutputRequest,
    SamplerRequest,
    Shard,
    TrainedSchedule,
    default_batch_size,
    resolve_sampler,
    shards_of,
)
from ddpm_inference.models.families import family_of

MODEL = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")


def identity(**changes: object) -> Identity:
    fields: dict[str, object] = {
        "model_sha256": "0" * 64,
        "model": MODEL,
        "sampler": resolve_sampler(SamplerRequest(), None),
        "seed": 0,
        "precision": "fp32",
        "batch_size": 32,
        "execution": "folded",
        "device": "cpu",
        "torch": "2.15.0",
    }
    return Identity.model_validate(fields | changes)


def test_a_job_round_trips_through_json() -> None:
    job = Job(model=ModelRequest(uri="builtin://mnist"), n_samples=7, output=OutputRequest(uri="out"))
    assert Job.parse(job.model_dump_json(), "the job") == job


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"model": {"uri": "x"}, "output": {"uri": "y"}, "n_sample": 3}, "n_sample"),
        ({"model": {"uri": "x"}, "output": {"uri": "y"}, "n_samples": 0}, "n_samples"),
        ({"model": {"uri": "x", "sha256": "ab"}, "output": {"uri": "y"}}, "model.sha256"),
        ({"model": {"uri": "x", "downs": []}, "output": {"uri": "y"}}, "model.downs"),
        ({"model": {"uri": "x"}, "output": {"uri": "y"}, "seed": -1}, "seed"),
        ({"model": {"uri": "x"}, "output": {"uri": "y"}, "version": 2}, "version"),
        ({"model": {"uri": "x"}, "output": {"uri": "y"}, "sampler": {"eta": 1.5}}, "sampler.eta"),
        ({"output": {"uri": "y"}}, "model"),
    ],
)
def test_an_invalid_field_is_named(document: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidSpec, match=field) as rejected:
        Job.parse(json.dumps(document), "DDPM_JOB")
    assert "DDPM_JOB" in rejected.value.message
    assert rejected.value.exit_code == 2


def test_every_field_of_the_identity_changes_the_fingerprint() -> None:
    base = identity()
    changed = [
        identity(model_sha256="1" * 64),
        identity(model=MODEL.model_copy(update={"time_embedding": "row"})),
        identity(model=MODEL.model_copy(update={"attention_norm": False})),
        identity(sampler=resolve_sampler(SamplerRequest(variance="small"), None)),
        identity(sampler=resolve_sampler(SamplerRequest(steps=999), None)),
        identity(seed=1),
        identity(precision="bf16"),
        identity(batch_size=16),
        identity(execution="compiled"),
        identity(device="cuda"),
        identity(noise="philox4x32-10/2"),
        identity(torch="2.15.1"),
    ]
    assert len({one.fingerprint for one in [base, *changed]}) == len(changed) + 1
    assert identity().fingerprint == base.fingerprint


def test_the_fingerprint_of_a_known_identity_is_fixed() -> None:
    # With another fingerprint no run resumes the samples that users have stored. Raise a version instead.
    assert identity(version=1).fingerprint == "25276cd41e5d80272aabd3eb1dd6854aa6a2a471512b82df06e6d1abe8cc5f82"
    assert identity(version=2).fingerprint == "0ff88f9d9dd9e555b9ccf92066c600f6ba30d4a354e445769670b86190b0b3f1"


def test_a_parsed_identity_has_the_same_fingerprint() -> None:
    one = identity(sampler=resolve_sampler(SamplerRequest(name="ddim", eta=0.3), None))
    assert Identity.parse(one.model_dump_json(), "job.json").fingerprint == one.fingerprint


def test_fields_the_sampler_does_not_use_do_not_count() -> None:
    assert resolve_sampler(SamplerRequest(eta=0.5), None) == resolve_sampler(SamplerRequest(), None)
    for name in ("ddim", "dpmpp"):
        assert resolve_sampler(SamplerRequest(name=name, variance="small"), None) == resolve_sampler(
            SamplerRequest(name=name), None
        )


def test_differences_name_the_field_and_both_values() -> None:
    assert identity(seed=1).differences(identity(seed=2)) == ["seed: 1, there 2"]
    small = identity(sampler=resolve_sampler(SamplerRequest(steps=10), None))
    assert small.differences(identity()) == ["sampler.steps: 10, there 1000"]


def test_sampler_defaults_come_from_checkpoint_then_guide() -> None:
    trained = TrainedSchedule(name="cosine", timesteps=400, variance="small")
    assert resolve_sampler(SamplerRequest(), trained).model_dump() == {
        "name": "ddpm",
        "timesteps": 400,
        "steps": 400,
        "eta": 0.0,
        "schedule": "cosine",
        "variance": "small",
    }
    guide = resolve_sampler(SamplerRequest(), None)
    assert (guide.schedule, guide.timesteps, guide.variance) == ("linear", 1000, "large")


@pytest.mark.parametrize(
    ("request_", "flag"),
    [(SamplerRequest(timesteps=500), "--timesteps 500"), (SamplerRequest(schedule="linear"), "--schedule linear")],
)
def test_a_flag_that_contradicts_the_checkpoint_is_an_error(request_: SamplerRequest, flag: str) -> None:
    with pytest.raises(InvalidSpec, match=flag):
        resolve_sampler(request_, TrainedSchedule(name="cosine", timesteps=1000))


def test_more_steps_than_timesteps_is_an_error() -> None:
    with pytest.raises(InvalidSpec, match="1001 steps are more than the schedule's 1000 timesteps"):
        resolve_sampler(SamplerRequest(steps=1001), None)


@pytest.mark.parametrize(
    ("img_size", "channels", "device", "size"),
    [(28, 1, "cpu", 32), (64, 3, "cpu", 8), (256, 3, "cpu", 1), (28, 1, "cuda", 512), (256, 3, "cuda", 16)],
)
def test_the_batch_size_depends_on_model_and_device(img_size: int, channels: int, device: str, size: int) -> None:
    model = MODEL.model_copy(update={"img_size": img_size, "channels": channels})
    assert default_batch_size(family_of(model).cost(model), device) == size  # type: ignore[arg-type]


@settings(deadline=None)  # 5,000 samples in shards of one are a second on a busy machine
@given(st.integers(1, 5000), st.integers(1, 600))
def test_shards_cover_every_sample_once_on_the_batch_grid(n_samples: int, batch_size: int) -> None:
    shards = list(shards_of(n_samples, batch_size))
    assert [i for shard in shards for i in range(shard.first, shard.last + 1)] == list(range(n_samples))
    assert all(shard.first % batch_size == 0 and shard.size <= batch_size for shard in shards)


@given(st.integers(0, 10**10), st.integers(1, 70_000))
def test_a_shard_round_trips_through_its_name(first: int, size: int) -> None:
    shard = Shard(first=first, last=first + size - 1)
    assert Shard.from_name(shard.name) == shard
    assert shard.size == size


@pytest.mark.parametrize("name", ["manifest.json", "1-2.npz", "000000005-000000004.npz", "000000000-000000031.npz.tmp"])
def test_other_file_names_are_no_shards(name: str) -> None:
    assert Shard.from_name(name) is None
