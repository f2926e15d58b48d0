"""The flags of `kubectl ddpm submit` as a DDPMSampling."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ddpm_operator.api import Spec
from ddpm_operator.api.model import JsonValue
from ddpm_operator.client.checkpoint_file import CheckpointFile, ImageShape
from ddpm_operator.client.model_folder import local_model
from ddpm_operator.kubectl_ddpm import main
from ddpm_operator.kubectl_ddpm.flags import add_flags, given_fields, ineffective_flags, manifest_from_flags
from ddpm_operator.kubectl_ddpm.manifest_file import ManifestError, SamplingManifest
from ddpm_operator.kubectl_ddpm.submit import with_checkpoint
from ddpm_operator.kubectl_ddpm.user_path import user_path
from ddpm_operator.planning.sizing import claim_size, plan
from tests.support.pipelines import nested, write


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


def test_switches_and_yes_or_no_become_booleans() -> None:
    spec = parse("--model builtin://mnist --allow-mixed-hardware --attention_norm no").sampling.spec
    assert (spec.resources.allow_mixed_hardware, spec.model.attention_norm) == (True, False)
    assert parse("--model builtin://mnist --attention_norm yes").sampling.spec.model.attention_norm is True
    with pytest.raises(SystemExit):
        parse("--model builtin://mnist --attention_norm maybe")


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
        ("--model builtin://mnist --sha256 ab", "--sha256 must have at least 64 characters"),
    ],
)
def test_an_invalid_flag_is_named(flags: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(flags)
    assert caught.value.messages[0].startswith(message)


def test_a_checkpoint_can_be_pinned(tmp_path: Path) -> None:
    assert parse(f"--model https://host/net.pt --sha256 {'AB' * 32}").sampling.spec.model.sha256 == "ab" * 32
    assert spec_with_checkpoint(tmp_path, f"--sha256 {'ab' * 32}").model.sha256 == "ab" * 32
    with pytest.raises(ManifestError, match=f"is {'ab' * 32}, not {'cd' * 32} as in --sha256"):
        spec_with_checkpoint(tmp_path, f"--sha256 {'cd' * 32}")


@pytest.mark.parametrize(
    ("flags", "sentences"),
    [
        ("--eta 0.5", ["--eta has no effect with the sampler ddpm: it applies to ddim"]),
        ("--variance small --sampler dpmpp", ["--variance has no effect with the sampler dpmpp: it applies to ddpm"]),
        ("--eta 0.5 --sampler ddim", []),
        ("--variance small", []),
    ],
)
def test_flags_that_the_sampler_does_not_use_get_a_note(flags: str, sentences: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert ineffective_flags(given_fields(parser.parse_args(flags.split()))) == sentences


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ("submitt x", "submit"),
        ("submit x --n_sample 3", "--n_samples"),
        ("submit x --sampler dpmp", "dpmpp"),
        ("list --naemspace x", "--namespace"),
    ],
)
def test_a_typo_gets_a_suggestion(arguments: str, suggestion: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    assert f"; did you mean {suggestion}?" in capsys.readouterr().err


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "digits.yaml").write_text(
        "{kind: DDPMSampling, apiVersion: ddpm-ray.io/v1alpha1, metadata: {name: digits}, "
        "spec: {model: {uri: builtin://mnist}, samples: 1}}"
    )
    assert main(["explain", "--filename=~/digits.yaml"]) == 0
    assert user_path("./~/x") == Path("~/x")
    assert user_path("~no-such-user/x") == Path("~no-such-user/x")


@pytest.mark.parametrize("field", ["sampler: {name: ddim, eta: 0.5}", "sampler: {name: ddim, eta: 1}"])
def test_a_number_that_must_be_a_string_is_to_be_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text(
        "{kind: DDPMSampling, apiVersion: ddpm-ray.io/v1alpha1, metadata: {name: digits}, "
        f"spec: {{model: {{uri: builtin://mnist}}, samples: 1, {field}}}}}"
    )
    assert main(["explain", "-f", str(file)]) == 2
    number = field.rpartition(": ")[2].rstrip("}")
    assert f'must be a string, not {number}; write it in quotes: "{number}"\n' in capsys.readouterr().err


def test_a_pipeline_folder_brings_its_footprint_and_digest(tmp_path: Path) -> None:
    folder = local_model(write(tmp_path, nested()))
    fields: dict[str, JsonValue] = {"spec.model.uri": str(tmp_path), "spec.samples": 400}
    spec = manifest_from_flags("mine", with_checkpoint("mine", fields, folder)).sampling.spec
    assert (spec.model.uri, spec.model.sha256) == ("pvc://mine-model/pipeline", folder.sha256)
    assert spec.model.footprint == folder.footprint
    assert spec.model.img_size is None
    assert plan(spec).batch_size == 32
    assert "chosen for 8x8 pixels and " in plan(spec).why[0]
