"""The identity of a job: what is chosen, what is kept from an earlier run, and what is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Device, Hardware, Identity, Job, ModelSpec, TrainedSchedule
from ddpm_inference.plan import device_without_cluster, require_same_job, resolve_identity, resources_for

SPEC = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
AVX512 = Hardware(cpu_vendor="GenuineIntel", aten="AVX512", onednn="AVX512_CORE")
AVX2 = Hardware(cpu_vendor="GenuineIntel", aten="AVX2", onednn="AVX2")
CHECKPOINT = Checkpoint(SPEC, TrainedSchedule(name="linear", timesteps=1000), {}, "0" * 64)


def job(**fields: Any) -> Job:  # noqa: ANN401
    return Job.model_validate({"model": {"uri": "net.safetensors"}, "output": {"uri": "out"}, **fields})


def identity(
    device: Device = "cpu",
    stored: Identity | None = None,
    torch: str = "2.15.0",
    hardware: Hardware | None = None,
    **fields: Any,  # noqa: ANN401
) -> Identity:
    return resolve_identity(job(**fields), CHECKPOINT, stored, device=device, torch=torch, hardware=hardware)


def test_samples_and_workers_do_not_change_the_identity() -> None:
    few, many = (
        identity(n_samples=1),
        identity(n_samples=100_000, resources={"workers": 7, "num_cpus_per_task": 1.5}),
    )
    assert few.fingerprint == many.fingerprint


def test_the_batch_size_may_be_given() -> None:
    assert identity("cpu").batch_size == 32
    assert identity("cuda").batch_size == 512
    assert identity("cpu", batch_size=5).batch_size == 5


def test_choices_of_an_earlier_run_are_kept() -> None:
    stored = identity(batch_size=7, compile=True)
    assert identity(stored=stored) == stored


def test_the_request_overrides_an_earlier_run() -> None:
    stored = identity(batch_size=7, compile=True)
    requested = identity(stored=stored, batch_size=8, compile=False)
    assert (requested.batch_size, requested.execution) == (8, "folded")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_device_of_an_earlier_run_is_kept(device: Device) -> None:
    assert device_without_cluster(job(), identity(device)) == device
    assert device_without_cluster(job(), None) is None
    assert device_without_cluster(job(device="cuda"), identity("cpu")) == "cuda"


def test_another_job_is_rejected_with_the_differences() -> None:
    stored = identity(seed=1, batch_size=16)
    with pytest.raises(OutputConflict) as rejected:
        require_same_job(identity(stored=stored, seed=2), stored, "out")
    assert "seed: 2, there 1" in rejected.value.message
    assert "batch_size" not in rejected.value.message
    assert "--overwrite" in rejected.value.hint


def test_the_same_job_and_an_empty_store_are_accepted() -> None:
    require_same_job(identity(), identity(n_samples=7), "out")
    require_same_job(identity(), None, "out")


def test_another_torch_is_rejected_naming_the_stored_one() -> None:
    stored = identity(torch="2.14.0")
    with pytest.raises(OutputConflict) as rejected:
        require_same_job(identity(stored=stored, torch="2.15.0"), stored, "out")
    assert "torch 2.14.0" in rejected.value.hint


def test_threads_are_part_of_the_identity_on_cpu() -> None:
    two = identity(resources={"num_cpus_per_task": 2})
    assert two.threads == 2
    assert two.fingerprint != identity().fingerprint
    on_gpu = identity("cuda", resources={"num_cpus_per_task": 2})
    assert (on_gpu.threads, on_gpu.fingerprint) == (1, identity("cuda").fingerprint)


def test_threads_of_an_earlier_run_are_kept() -> None:
    stored = identity(resources={"num_cpus_per_task": 3})
    assert identity(stored=stored, resources={"workers": 2}) == stored
    assert resources_for(job(resources={"workers": 2}), stored).num_cpus_per_task == 3
    assert resources_for(job(resources={"num_cpus_per_task": 1}), stored).num_cpus_per_task == 1


def test_other_threads_are_rejected_naming_the_stored_ones() -> None:
    stored = identity(resources={"num_cpus_per_task": 3})
    with pytest.raises(OutputConflict, match="threads: 1, there 3") as rejected:
        require_same_job(identity(stored=stored, resources={"num_cpus_per_task": 1}), stored, "out")
    assert "omit --num_cpus_per_task, or give 3" in rejected.value.hint


def test_other_hardware_is_rejected_unless_mixed() -> None:
    stored = identity(hardware=AVX512)
    with pytest.raises(OutputConflict, match=r"hardware\.aten: AVX2, there AVX512") as rejected:
        require_same_job(identity(stored=stored, hardware=AVX2), stored, "out")
    assert "--allow_mixed_hardware" in rejected.value.hint
    assert rejected.value.other_hardware_ips == ()
    mixed = identity(stored=stored, hardware=AVX2, resources={"allow_mixed_hardware": True})
    assert mixed == stored
    assert identity(hardware=AVX2, resources={"allow_mixed_hardware": True}).hardware == AVX2


def test_the_node_is_named_only_if_the_hardware_alone_differs() -> None:
    stored = identity(hardware=AVX512)
    with pytest.raises(OutputConflict) as rejected:
        require_same_job(identity(stored=stored, hardware=AVX2), stored, "out", "10.0.0.7")
    assert rejected.value.other_hardware_ips == ("10.0.0.7",)
    with pytest.raises(OutputConflict) as rejected:
        require_same_job(identity(stored=stored, hardware=AVX2, seed=1), stored, "out", "10.0.0.7")
    assert rejected.value.other_hardware_ips == ()


def test_unknown_hardware_is_not_compared() -> None:
    known, unknown = identity(hardware=AVX512), identity()
    assert identity(stored=known) == known
    assert identity(stored=unknown, hardware=AVX2) == unknown


def test_a_fraction_above_one_gpu_is_rejected() -> None:
    with pytest.raises(InvalidSpec, match="--num_gpus_per_task"):
        identity("cuda", resources={"num_gpus_per_task": 1.5})
    assert identity("cpu", resources={"num_gpus_per_task": 1.5}).device == "cpu"
    assert identity("cuda", resources={"num_gpus_per_task": 2}).device == "cuda"
