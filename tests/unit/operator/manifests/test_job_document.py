"""What an attempt hands to inference is a Job that inference takes, and means the same."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ddpm_inference.job import JOB_DOCUMENT_VERSION, Job, ResourceRequest
from ddpm_operator.api import DDPMSampling, Metadata, Spec
from ddpm_operator.manifests.job_document import gpu_share, job_document
from ddpm_operator.manifests.render import Attempt
from ddpm_operator.planning.sizing import plan

MakeSpec = Callable[..., Spec]


def job_of(sampling: Metadata, spec: Spec) -> Job:
    attempt = Attempt(sampling, 1, spec, plan(spec), image="worker:1", ray_version="2.60.0", shared_output=False)
    return Job.parse(json.dumps(job_document(attempt)), "the operator's Job")


def test_inference_takes_the_job_of_every_sampling(accepted: list[DDPMSampling]) -> None:
    for sampling in accepted:
        job = job_of(sampling.metadata, sampling.spec)
        assert job.version == JOB_DOCUMENT_VERSION
        assert (job.n_samples, job.seed, job.precision) == (
            sampling.spec.samples,
            sampling.spec.seed,
            sampling.spec.precision,
        )


def test_nothing_that_decides_the_pixels_is_lost(accepted: list[DDPMSampling]) -> None:
    own = next(sampling for sampling in accepted if sampling.metadata.name == "own-checkpoint")
    job = job_of(own.metadata, own.spec)
    assert job.model.model_dump() == {
        "uri": "/model/checkpoints/unet..v2.pt",
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "name": "Unet",
        "downs": (8, 16, 32),
        "time_emb_dim": 4,
        "img_size": 28,
        "channels": 1,
        "time_embedding": "row",
    }
    assert job.sampler.model_dump() == {
        "name": "ddim",
        "timesteps": 1000,
        "steps": 1000,
        "eta": 0.25,
        "schedule": "cosine_origin",
        "variance": "small",
    }
    assert (job.batch_size, job.device) == (1, "cpu")


def test_what_the_plan_chose_is_handed_over(metadata: Metadata, make_spec: MakeSpec) -> None:
    resources = {"gpus": 2, "tasksPerGPU": 4}
    job = job_of(metadata, make_spec(samples=10_000, resources=resources))
    assert (job.device, job.batch_size, job.resources.num_gpus_per_task) == ("cuda", 512, 0.25)


def test_what_the_checkpoint_is_to_choose_is_left_open(metadata: Metadata, make_spec: MakeSpec) -> None:
    job = job_of(metadata, make_spec(model={"uri": "s3://models/a.safetensors"}))
    assert job.batch_size is None
    assert job.sampler.timesteps is None
    assert job.model.name is None


@pytest.mark.parametrize(
    ("output", "uri"),
    [
        ({}, "/output"),
        ({"uri": "pvc://work/a/b/"}, "/output/a/b"),
        ({"uri": "s3://bucket/a"}, "s3://bucket/a"),
    ],
)
def test_samples_go_where_the_pods_see_their_place(
    metadata: Metadata, make_spec: MakeSpec, output: dict[str, str], uri: str
) -> None:
    assert job_of(metadata, make_spec(output=output)).output.uri == uri


@pytest.mark.parametrize("tasks", range(1, 65))
def test_as_many_tasks_fit_on_a_gpu_as_were_asked_for(tasks: int) -> None:
    # Ray counts resources in steps of 0.0001, rounded to the nearest.
    share = gpu_share(tasks)
    assert round(share * 10_000) * tasks <= 10_000
    assert round(share * 10_000) * (tasks + 1) > 10_000
    assert ResourceRequest(num_gpus_per_task=share).num_gpus_per_task == share


def test_a_start_may_take_as_long_as_the_sampling_allows(metadata: Metadata, make_spec: MakeSpec) -> None:
    assert job_of(metadata, make_spec(startupDeadlineSeconds=77)).resources.startup_timeout == 77
    assert job_of(metadata, make_spec(startupDeadlineSeconds=31_536_000)).resources.startup_timeout == 86_400
