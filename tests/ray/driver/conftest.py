"""A small checkpoint, and the Ray clusters that tests share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddpm_inference.checkpoint import save
from ddpm_inference.job import ModelSpec, TrainedSchedule
from ddpm_inference.models import build
from tests.support.rays import Head, python_without, ray_head

# A process has one auth mode, which Ray reads when it is imported; this process connects to clusters without a token.
# Commands that the tests start do not inherit it.
os.environ["RAY_AUTH_MODE"] = "disabled"

SPEC = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=8, time_embedding="step")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    torch.manual_seed(0)
    save(path, build(SPEC).state_dict(), SPEC, TrainedSchedule(name="linear", timesteps=1000))
    return path


@pytest.fixture(scope="session")
def foreign_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the packages that workers need, but without this project."""
    return python_without(tmp_path_factory.mktemp("python") / "env")


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory, foreign_python: Path) -> Iterator[Head]:
    """A foreign Ray that requires a token."""
    folder = tmp_path_factory.mktemp("head")
    with ray_head(folder, foreign_python, "--num-cpus=4", token=secrets.token_hex(32)) as running:
        yield running


@pytest.fixture(scope="session")
def open_head(tmp_path_factory: pytest.TempPathFactory, foreign_python: Path) -> Iterator[Head]:
    """A foreign Ray without a token, for runs in the test's own process. Its GPU is declared, not real."""
    folder = tmp_path_factory.mktemp("open")
    with ray_head(folder, foreign_python, "--num-cpus=4", "--num-gpus=1") as running:
        yield running
