"""Small checkpoints of both formats, created anew for every test."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights, encode
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule
from ddpm_inference.models.guide_layout import COUNTER, layout

SPEC = ModelSpec(name="Unet", downs=(4, 6), time_emb_dim=2, img_size=8, time_embedding="step")


def random_weights(spec: ModelSpec) -> Weights:
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
    """Weights of the network of `spec`; positive, so that they are valid variances."""
    return random_weights(SPEC)


@pytest.fixture
def weights_of() -> Callable[[ModelSpec], Weights]:
    return random_weights


@pytest.fixture
def trained() -> TrainedSchedule:
    return TrainedSchedule(name="sigmoid", timesteps=500, variance="small")


@pytest.fixture
def file(weights: Weights, trained: TrainedSchedule) -> bytes:
    """A complete safetensors checkpoint of `spec`, with metadata."""
    return encode(weights, Metadata(model=SPEC, trained=trained))


@pytest.fixture
def request_() -> ModelRequest:
    """The request of a user who passes nothing but the location."""
    return ModelRequest(uri="some/model")


@pytest.fixture
def as_pt() -> Callable[[object], bytes]:
    """Returns a function from a value to the bytes of torch.save; arrays in a flat dict become tensors first."""

    def saved(value: object) -> bytes:
        if isinstance(value, dict):
            value = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in value.items()}
        file = BytesIO()
        torch.save(value, file)
        return file.getvalue()

    return saved
