"""The guide's flags as a DDPMSampling."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ddpm_operator.api import Spec
from ddpm_operator.client.checkpoint_file import CheckpointFile, Images
from ddpm_operator.kubectl_ddpm.flags import add_flags, given, sampling_of
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, Written
from ddpm_operator.kubectl_ddpm.submit import with_checkpoint
from ddpm_operator.planning.sizing import claim_size, plan


def meant_by(line: str) -> Written:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return sampling_of("digits", given(parser.parse_args(line.split())))


def test_only_what_was_given_is_sent() -> None:
    document = meant_by("--model builtin://mnist --n-samples 16 --sampler ddim --eta 0.5 --downs 8 16").document
    assert document["metadata"] == {"name": "digits"}
    assert document["spec"] == {
        "model": {"uri": "builtin://mnist", "downs": [8, 16]},
        "samples": 16,
        "sampler": {"name": "ddim", "eta": "0.5"},
    }


def test_a_share_of_a_gpu_is_a_number_of_tasks() -> None:
    spec = meant_by("--model_path builtin://mnist --gpus 2 --num_gpus_per_task 0.25").sampling.spec
    assert (spec.samples, spec.resources.gpus, spec.resources.tasks_per_gpu) == (100, 2, 4)


def of_a_file(tmp_path: Path, line: str, **images: int) -> Spec:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    file = CheckpointFile(tmp_path / "net.safetensors", "safetensors", 1, "ab" * 32, Images(**images))
    fields = given(parser.parse_args(["--model_path", str(file.path), *line.split()]))
    return sampling_of("mine", with_checkpoint("mine", fields, file)).sampling.spec


def test_a_checkpoint_of_this_machine_is_planned_by_what_it_says_of_its_images(tmp_path: Path) -> None:
    line = "--n_samples 400 --gpus 8 --workers 8"
    known, unknown = of_a_file(tmp_path, line, img_size=256, channels=3), of_a_file(tmp_path, line)
    assert known.model.uri == "pvc://mine-model/model.safetensors"
    assert (known.model.img_size, known.model.channels, known.model.sha256) == (256, 3, "ab" * 32)
    assert (plan(known).gpus, plan(known).shards) == (8, 25)
    assert (plan(unknown).gpus, plan(unknown).shards) == (1, None)
    assert (claim_size(known), claim_size(unknown)) == ("2Gi", "1Gi")


def test_a_flag_stays_though_the_checkpoint_says_otherwise_which_the_driver_refuses(tmp_path: Path) -> None:
    model = of_a_file(tmp_path, "--img_size 64 --channels 1", img_size=256, channels=3).model
    assert (model.img_size, model.channels) == (64, 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--n_samples 5", "--model_path is missing"),
        ("--model ftp://net.pt", "--model_path: a model URI must start with builtin://"),
        ("--model builtin://mnist --worker_cpu many", "--worker_cpu: cpu must be a quantity"),
        ("--model builtin://mnist --n_samples 0", "--n_samples must be greater than or equal to 1, not 0"),
        ("--model builtin://mnist --timesteps 5 --steps 6", "--steps: steps must be less than or equal to timesteps"),
        ("--model builtin://mnist --num_gpus_per_task 0.3", "--num_gpus_per_task must be 1 divided by a whole"),
        ("--model builtin://mnist --output_uri /tmp", "--output_uri"),
    ],
)
def test_a_wrong_flag_is_named(line: str, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        meant_by(line)
    assert caught.value.faults[0].startswith(says)
