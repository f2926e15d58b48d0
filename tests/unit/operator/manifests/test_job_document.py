"""The job document that the operator writes: ddpm_inference parses it and gets the values of the spec."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from ddpm_inference import job as inference_job
from ddpm_inference.job import JOB_DOCUMENT_VERSION, Job, ResourceRequest
from ddpm_operator.api import DDPMSampling, Metadata, Spec
from ddpm_operator.api import spec as operator_spec
from ddpm_operator.manifests import job_document as operator_document
from ddpm_operator.manifests.job_document import gpu_share, job_document
from ddpm_operator.manifests.render import Attempt
from ddpm_operator.planning.sizing import plan

MakeSpec = Callable[..., Spec]


def attempt_of(sampling: Metadata, spec: Spec) -> Attempt:
    return Attempt(sampling, 1, spec, plan(spec), image="worker:1", ray_version="2.60.0", shared_output=False)


def job_of(sampling: Metadata, spec: Spec) -> Job:
    return Job.parse(json.dumps(job_document(attempt_of(sampling, spec))), "the job document")


def test_inference_parses_the_job_document_of_every_spec(accepted: list[DDPMSampling]) -> None:
    for sampling in accepted:
        job = job_of(sampling.metadata, sampling.spec)
        assert job.version == JOB_DOCUMENT_VERSION == operator_document.JOB_DOCUMENT_VERSION
        assert (job.n_samples, job.seed, job.precision) == (
            sampling.spec.samples,
            sampling.spec.seed,
            sampling.spec.precision,
        )


def test_model_and_sampler_fields_are_passed_on(accepted: list[DDPMSampling]) -> None:
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
        "attention_norm": None,
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


def test_newer_fields_are_absent_unless_they_are_needed(metadata: Metadata, make_spec: MakeSpec) -> None:
    plain = job_document(attempt_of(metadata, make_spec()))
    own = make_spec(
        model={"uri": "builtin://mnist", "attentionNorm": False}, resources={"allowMixedHardware": True}, repair=1
    )
    document = job_document(replace(attempt_of(metadata, own), repairs=True))
    newer = {"model": {"attention_norm"}, "resources": {"allow_mixed_hardware"}, "output": {"verify"}}
    assert {part: set(document[part]) - set(plain[part]) for part in newer} == newer
    job = Job.parse(json.dumps(document), "the job document")
    assert (job.model.attention_norm, job.resources.allow_mixed_hardware, job.output.verify) == (False, True, True)


def test_device_batch_size_and_gpu_share_come_from_the_plan(metadata: Metadata, make_spec: MakeSpec) -> None:
    resources = {"gpus": 2, "tasksPerGPU": 4}
    job = job_of(metadata, make_spec(samples=10_000, resources=resources))
    assert (job.device, job.batch_size, job.resources.num_gpus_per_task) == ("cuda", 512, 0.25)


def test_fields_that_the_checkpoint_determines_are_unset(metadata: Metadata, make_spec: MakeSpec) -> None:
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
def test_pvc_output_becomes_a_mounted_path(
    metadata: Metadata, make_spec: MakeSpec, output: dict[str, str], uri: str
) -> None:
    assert job_of(metadata, make_spec(output=output)).output.uri == uri


def test_requested_tasks_fit_on_a_gpu() -> None:
    for tasks in range(1, 65):
        share = gpu_share(tasks)
        units = round(share * 10_000)  # Ray rounds resources to the nearest 0.0001
        assert units * tasks <= 10_000, tasks
        assert units * (tasks + 1) > 10_000, tasks
        assert ResourceRequest(num_gpus_per_task=share).num_gpus_per_task == share


def test_startup_timeout_is_the_startup_deadline_up_to_a_day(metadata: Metadata, make_spec: MakeSpec) -> None:
    assert job_of(metadata, make_spec(startupDeadlineSeconds=77)).resources.startup_timeout == 77
    assert job_of(metadata, make_spec(startupDeadlineSeconds=31_536_000)).resources.startup_timeout == 86_400


@pytest.mark.parametrize(
    "name",
    ["Format", "ModelName", "Precision", "SamplerName", "ScheduleName", "TimeEmbedding", "Variance"],
)
def test_enumerations_match_inference(name: str) -> None:
    assert get_args(getattr(operator_spec, name)) == get_args(getattr(inference_job, name))


def test_formats_may_all_be_listed_once_in_both_programs() -> None:
    assert operator_spec.Output(formats=get_args(operator_spec.Format)).formats == ("npy", "png")
    limits = [
        constraint.max_length
        for model in (operator_spec.Output, inference_job.OutputRequest)
        for constraint in model.model_fields["formats"].metadata
        if hasattr(constraint, "max_length")
    ]
    assert limits == [len(get_args(operator_spec.Format))] * 2
