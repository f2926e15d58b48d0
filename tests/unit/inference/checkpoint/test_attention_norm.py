"""Whether a bare Unet applies the BatchNorm of its attention: what its weights say, and what the user says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint import Checkpoint, load
from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights, encode
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import ModelRequest, ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.guide_layout import COUNTER

NORM = "attention_int.bnorm"


def trained_weights(*, attention_norm: bool, batches: int = 3) -> Weights:
    """Returns the weights of a Unet after some batches in training mode, which move the statistics of its norms."""
    torch.manual_seed(0)
    network = build(
        ModelSpec(
            name="Unet", downs=(4, 6), time_emb_dim=2, img_size=8, time_embedding="step", attention_norm=attention_norm
        )
    ).train()
    for _ in range(batches):
        network(torch.randn(4, 1, 8, 8), torch.arange(4))
    return {key: value.numpy() for key, value in network.state_dict().items()}


def with_counters_zeroed(weights: Weights) -> Weights:
    return {key: np.zeros_like(value) if key.endswith(COUNTER) else value for key, value in weights.items()}


def load_bare(weights: Weights, attention_norm: bool | None = None) -> Checkpoint:
    return load(encode(weights, None), ModelRequest(uri="x", img_size=8, attention_norm=attention_norm))


def norm_notes(checkpoint: Checkpoint) -> list[str]:
    return [note.partition(",")[0].partition(":")[0] for note in checkpoint.notes if "BatchNorm" in note]


@pytest.mark.parametrize("zeroed", [False, True])
@pytest.mark.parametrize("applied", [True, False])
def test_zeroed_counters_do_not_change_the_network(applied: bool, zeroed: bool) -> None:
    weights = trained_weights(attention_norm=applied)
    checkpoint = load_bare(with_counters_zeroed(weights) if zeroed else weights)
    assert checkpoint.spec.attention_norm is applied
    assert norm_notes(checkpoint) == ([] if applied else ["attention without its BatchNorm"])


def test_a_counter_of_its_own_shows_that_the_norm_is_applied() -> None:
    weights = trained_weights(attention_norm=False)
    weights[f"{NORM}.{COUNTER}"] = np.array(1)
    assert load_bare(weights).spec.attention_norm


def test_statistics_that_rounding_moved_are_still_the_initial_ones() -> None:
    weights = trained_weights(attention_norm=False)
    weights[f"{NORM}.running_var"] = np.full_like(weights[f"{NORM}.running_var"], 0.9998)
    assert not load_bare(weights).spec.attention_norm


def test_an_untrained_network_is_assumed_to_apply_the_norm() -> None:
    checkpoint = load_bare(trained_weights(attention_norm=False, batches=0))
    assert checkpoint.spec.attention_norm
    assert norm_notes(checkpoint) == ["attention with its BatchNorm"]


@pytest.mark.parametrize("applied", [True, False])
def test_the_flag_decides_against_the_statistics(applied: bool) -> None:
    checkpoint = load_bare(trained_weights(attention_norm=not applied), attention_norm=applied)
    assert checkpoint.spec.attention_norm is applied
    assert norm_notes(checkpoint) == []


def test_the_flag_must_not_contradict_metadata(spec: ModelSpec, weights: Weights) -> None:
    file = encode(weights, Metadata(model=spec, trained=None))
    with pytest.raises(InvalidSpec, match="--attention_norm no contradicts the checkpoint, whose metadata says yes"):
        load(file, ModelRequest(uri="x", attention_norm=False))


def test_the_flag_is_for_the_unet_only(weights_of: Callable[[ModelSpec], Weights]) -> None:
    spec = ModelSpec(name="SimpleUnet", downs=(4, 6), time_emb_dim=2, img_size=8, time_embedding="row")
    with pytest.raises(InvalidSpec, match="--attention_norm is for the Unet"):
        load_bare(weights_of(spec), attention_norm=False)
