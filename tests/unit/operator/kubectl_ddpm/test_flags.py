"""The flags of `kubectl ddpm submit` as a DDPMSampling."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ddpm_operator.api import Spec
from ddpm_operator.client.checkpoint_file import CheckpointFile, ImageShape
from ddpm_operator.kubectl_ddpm.flags import add_flags, given_fields, manifest_from_flags
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, SamplingManifest
from ddpm_operator.kubectl_ddpm.submit import with_checkpoint
from ddpm_operator.planning.sizing import claim_size, plan


def parse(flags: str) -> SamplingManifest:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return manifest_from_flags("digits", given_fields(parser.parse_args(flags.split())))


def test_only_given_fields_are_in_the_manifest() -> None:
    document = parse("--model builtin://mnist --n-samples 16 --sampler ddim --eta 0.5 --downs 8 16").document
    assert document["metadata"] == {"name": "digits"}
    assert document["spec"] == {
        "model": {"uri": "builtin://mnist", "downs": [8, 16]},
        "samples": 16,
        "sampler": {"name": "ddim", "eta": "0.5"},
    }


def test_gpus_per_task_become_tasks_per_gpu() -> None:
    spec = parse("--model_path builtin://mnist --gpus 2 --num_gpus_per_task 0.25").sampling.spec
    assert (spec.samples, spec.resources.gpus, spec.resources.tasks_per_gpu) == (100, 2, 4)


def spec_with_checkpoint(tmp_path: Path, flags: str, **images: int) -> Spec:
    """Parses flags together with a local checkpoint whose metadata states the image shape."""
    parser = argparse.ArgumentParser()
    add_flags(parser)
    file = CheckpointFile(tmp_path / "net.safetensors", "safetensors", 1, "ab" * 32, ImageShape(**images))
    fields = given_fields(parser.parse_args(["--model_path", str(file.path), *flags.split()]))
    return manifest_from_flags("mine", with_checkpoint("mine", fields, file)).sampling.spec


def test_the_plan_uses_the_image_shape_of_a_local_checkpoint(tmp_path: Path) -> None:
    flags = "--n_samples 400 --gpus 8 --workers 8"
    known = spec_with_checkpoint(tmp_path, flags, img_size=256, channels=3)
    unknown = spec_with_checkpoint(tmp_path, flags)
    assert known.model.uri == "pvc://mine-model/model.safetensors"
    assert (known.model.img_size, known.model.channels, known.model.sha256) == (256, 3, "ab" * 32)
    assert (plan(known).gpus, plan(known).shards) == (8, 25)
    assert (plan(unknown).gpus, plan(unknown).shards) == (1, None)
    assert (claim_size(known), claim_size(unknown)) == ("2Gi", "1Gi")


def test_a_flag_takes_precedence_over_the_checkpoint(tmp_path: Path) -> None:
    model = spec_with_checkpoint(tmp_path, "--img_size 64 --channels 1", img_size=256, channels=3).model
    assert (model.img_size, model.channels) == (64, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--n_samples 5", "--model_path is missing"),
        ("--model ftp://net.pt", "--model_path: a model URI must start with builtin://"),
        ("--model builtin://mnist --worker_cpu many", "--worker_cpu: cpu must be a quantity"),
        ("--model builtin://mnist --n_samples 0", "--n_samples must be greater than or equal to 1, not 0"),
        ("--model builtin://mnist --timesteps 5 --steps 6", "--steps: steps must"),
        ("--model builtin://mnist --num_gpus_per_task 0.3", "--num_gpus_per_task must be 1 divided by a whole"),
        ("--model builtin://mnist --output_uri /tmp", "--output_uri"),
    ],
)
def test_an_invalid_flag_is_named(flags: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(flags)
    assert caught.value.messages[0].startswith(message)
