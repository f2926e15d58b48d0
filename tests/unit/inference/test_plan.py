"""What is chosen, what is kept from a former run, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Device, Identity, Job, ModelSpec, TrainedSchedule
from ddpm_inference.plan import known_device, refuse_another, resolve

SPEC = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
CHECKPOINT = Checkpoint(SPEC, TrainedSchedule(name="linear", timesteps=1000), {}, "0" * 64)


def job(**fields: Any) -> Job:  # noqa: ANN401
    return Job.model_validate({"model": {"uri": "net.safetensors"}, "output": {"uri": "out"}, **fields})


def identity(
    device: Device = "cpu",
    there: Identity | None = None,
    torch: str = "2.15.0",
    **fields: Any,  # noqa: ANN401
) -> Identity:
    return resolve(job(**fields), CHECKPOINT, there, device=device, torch=torch)


def test_the_identity_does_not_depend_on_how_many_samples_or_workers() -> None:
    few, many = (
        identity(n_samples=1),
        identity(n_samples=100_000, resources={"workers": 7, "num_cpus_per_task": 2}),
    )
    assert few.fingerprint == many.fingerprint


def test_the_batch_size_is_chosen_by_device_and_may_be_given() -> None:
    assert identity("cpu").batch_size == 32
    assert identity("cuda").batch_size == 512
    assert identity("cpu", batch_size=5).batch_size == 5


def test_what_was_chosen_when_the_place_was_begun_stays() -> None:
    there = identity(batch_size=7, compile=True)
    assert identity(there=there) == there


def test_what_is_asked_for_is_not_overruled_by_what_is_there() -> None:
    there = identity(batch_size=7, compile=True)
    asked = identity(there=there, batch_size=8, compile=False)
    assert (asked.batch_size, asked.execution) == (8, "folded")


@pytest.mark.parametrize("stored", ["cpu", "cuda"])
def test_the_device_of_a_former_run_stays_and_needs_no_look_at_the_cluster(stored: Device) -> None:
    there = identity(stored)
    assert known_device(job(), there) == stored
    assert known_device(job(), None) is None
    assert known_device(job(device="cuda"), identity("cpu")) == "cuda"


def test_another_job_is_refused_with_all_that_tells_them_apart() -> None:
    there = identity(seed=1, batch_size=16)
    with pytest.raises(OutputConflict) as refused:
        refuse_another(identity(there=there, seed=2), there, "out")
    assert "seed: 2, there 1" in refused.value.message
    assert "batch_size" not in refused.value.message
    assert "--overwrite" in refused.value.hint


def test_the_same_job_and_an_empty_place_are_not_refused() -> None:
    refuse_another(identity(), identity(n_samples=7), "out")
    refuse_another(identity(), None, "out")


def test_another_torch_is_refused_with_the_version_that_would_do() -> None:
    there = identity(torch="2.14.0")
    with pytest.raises(OutputConflict) as refused:
        refuse_another(identity(there=there, torch="2.15.0"), there, "out")
    assert "torch 2.14.0" in refused.value.hint


def test_a_fraction_above_one_gpu_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="--num_gpus_per_task"):
        identity("cuda", resources={"num_gpus_per_task": 1.5})
    assert identity("cpu", resources={"num_gpus_per_task": 1.5}).device == "cpu"
    assert identity("cuda", resources={"num_gpus_per_task": 2}).device == "cuda"
