"""The documented layouts of checkpoints agree with the networks."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_inference.job import ModelName, ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.guide_layout import COUNTER, layout, size_multiple
from ddpm_inference.models.guide_networks import NETWORKS

NAMES: tuple[ModelName, ...] = get_args(ModelName)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        ModelSpec,
        name=st.sampled_from(NAMES),
        downs=st.lists(st.integers(2, 24), min_size=1, max_size=4).map(tuple),
        time_emb_dim=st.integers(2, 9),
        img_size=st.just(64),
        channels=st.integers(1, 4),
        time_embedding=st.just("row"),
        attention_norm=st.booleans(),
    )
)
def test_the_networks_have_the_documented_keys_and_shapes(spec: ModelSpec) -> None:
    with torch.device("meta"):
        network = build(spec)
    assert layout(spec) == {key: tuple(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [1, 2, 3, 8])
def test_the_networks_take_images_of_the_documented_sizes(name: ModelName, levels: int) -> None:
    assert size_multiple(name, levels) == NETWORKS[name].size_multiple(levels)


@pytest.mark.parametrize(("name", "keys", "parameters"), [("Unet", 163, 208_661), ("SimpleUnet", 144, 195_505)])
def test_the_guide_networks_have_the_original_size(name: ModelName, keys: int, parameters: int) -> None:
    spec = ModelSpec(name=name, downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="row")
    shapes = layout(spec)
    assert len(shapes) == keys
    statistics = (COUNTER, "running_mean", "running_var")
    assert sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(statistics)) == parameters
