"""The samplers, networks and formats of `job` are those of every table and text that names them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from ddpm_inference.cli import main
from ddpm_inference.flags import sample_parser
from ddpm_inference.job import DEFAULT_STEPS, FILE_OF_FORMAT, Format, ModelName, SamplerName
from ddpm_inference.models.guide_networks import NETWORKS
from ddpm_inference.outputs import GUIDE_NAMES
from ddpm_inference.sampling.samplers import DIFFUSERS_SAMPLERS, SAMPLERS


def test_every_sampler_has_a_function_and_default_steps() -> None:
    assert set(SAMPLERS) < set(DIFFUSERS_SAMPLERS) == set(DEFAULT_STEPS) == set(get_args(SamplerName))


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_the_dry_run_describes_every_sampler(
    name: SamplerName, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model_path", "builtin://mnist", "--out_dir", str(tmp_path), "--device", "cpu"]
    assert main([*flags, "--sampler", name, "--dry_run"]) == 0
    assert f"{name}, {DEFAULT_STEPS[name] or 1000} of 1000 timesteps" in capsys.readouterr().out


def test_the_help_states_the_default_steps_of_every_sampler() -> None:
    text = " ".join(sample_parser().format_help().split())
    stated = [f"{name} {steps or 'all timesteps'}" for name, steps in DEFAULT_STEPS.items()]
    assert f"(default: {', '.join(stated)})" in text


def test_every_network_name_has_a_network() -> None:
    assert set(NETWORKS) == set(get_args(ModelName))


def test_every_format_has_its_file_names() -> None:
    assert set(FILE_OF_FORMAT) == set(GUIDE_NAMES) == set(get_args(Format))
