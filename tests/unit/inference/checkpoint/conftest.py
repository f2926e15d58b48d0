"""Small checkpoints of both kinds, made afresh for every test."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint.layout import COUNTER, layout
from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights, encode
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule

SPEC = ModelSpec(name="Unet", downs=(4, 6), time_emb_dim=2, img_size=8, time_embedding="step")


def some_weights(spec: ModelSpec) -> Weights:
    rng = np.random.default_rng(0)
    return {
        key: np.array(7) if key.endswith(COUNTER) else rng.random(shape, np.float32)
        for key, shape in layout(spec).items()
    }


@pytest.fixture
def spec() -> ModelSpec:
    return SPEC


@pytest.fixture
def weights() -> Weights:
    """Of the network of `spec`; positive, so that they may be variances as well."""
    return some_weights(SPEC)


@pytest.fixture
def weights_of() -> Callable[[ModelSpec], Weights]:
    return some_weights


@pytest.fixture
def trained() -> TrainedSchedule:
    return TrainedSchedule(name="sigmoid", timesteps=500, variance="small")


@pytest.fixture
def file(weights: Weights, trained: TrainedSchedule) -> bytes:
    """A whole safetensors checkpoint of `spec`, with metadata."""
    return encode(weights, Metadata(model=SPEC, trained=trained))


@pytest.fixture
def request_() -> ModelRequest:
    """What a user asks for who lets the checkpoint say everything."""
    return ModelRequest(uri="some/model")


@pytest.fixture
def as_pt() -> Callable[[object], bytes]:
    """The bytes torch.save writes; arrays in a flat dict become tensors first."""

    def saved(value: object) -> bytes:
        if isinstance(value, dict):
            value = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in value.items()}
        file = BytesIO()
        torch.save(value, file)
        return file.getvalue()

    return saved
