"""The shipped files: the trained network and its judge."""

from __future__ import annotations

from pathlib import Path

import classifier
import decoys
import judge
import pytest
import torch
from digits import Digits

from ddpm_inference.checkpoint import Checkpoint, load
from ddpm_inference.job import ModelRequest, SamplerRequest, TrainedSchedule, resolve_sampler
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample
from ddpm_inference.sampling.schedule import schedule, spaced

SHIPPED = Path(judge.WEIGHTS).with_name("mnist.safetensors")
MAX_BYTES = 8_000_000


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load(SHIPPED, ModelRequest(uri=str(SHIPPED)))


@pytest.fixture(scope="module")
def shipped_judge(data: tuple[Digits, Digits]) -> classifier.Classifier:
    return judge.load_judge(train_anew=False, data=data[0])


def test_the_shipped_network_has_complete_metadata(shipped: Checkpoint) -> None:
    assert shipped.spec.image_shape == (1, 28, 28)
    assert shipped.spec.time_embedding == "step"
    assert shipped.trained == TrainedSchedule(name="cosine", timesteps=1000, variance="small")
    assert shipped.notes == ()
    assert SHIPPED.stat().st_size <= MAX_BYTES


@pytest.mark.slow
def test_most_samples_of_the_shipped_network_are_digits(
    shipped: Checkpoint, shipped_judge: classifier.Classifier
) -> None:
    chain = resolve_sampler(SamplerRequest(name="ddpm", steps=25), shipped.trained)
    network = build(shipped.spec)
    network.load_state_dict(shipped.state_dict())
    eps = predictor(network, shipped.spec, spaced(chain.timesteps, chain.steps))
    noise = NoiseSource(0, torch.arange(16), shipped.spec.image_shape)
    x0 = sample(eps, noise.initial(), schedule(chain.schedule, chain.timesteps), chain, noise=noise)
    assert (classifier.accepted(shipped_judge, (x0 + 1) / 2) >= 0).float().mean() >= 0.5


def test_the_judge_recognises_held_out_digits(
    shipped_judge: classifier.Classifier, data: tuple[Digits, Digits]
) -> None:
    _, held_out = data
    verdicts = classifier.accepted(shipped_judge, held_out.images)
    assert (verdicts >= 0).sum() >= 0.95 * len(verdicts)
    assert (verdicts == held_out.labels).float().mean() >= 0.94


@pytest.mark.parametrize("kind", ["noise", "blank", "shuffled"])
def test_the_judge_rejects_decoys(kind: str, shipped_judge: classifier.Classifier, data: tuple[Digits, Digits]) -> None:
    _, held_out = data
    images = decoys.MAKERS[kind](held_out, torch.Generator().manual_seed(7))
    assert (classifier.accepted(shipped_judge, images) >= 0).float().mean() <= 0.01


@pytest.mark.slow
def test_the_judge_rejects_an_untrained_network(shipped_judge: classifier.Classifier) -> None:
    assert (classifier.accepted(shipped_judge, judge.untrained(64)) >= 0).float().mean() <= 0.02
