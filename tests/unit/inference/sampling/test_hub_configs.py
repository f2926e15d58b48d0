"""Every configuration of tests/fixtures/hub_configs.jsonl that is not refused is drawn as diffusers draws it.

Widths and images are reduced to 32, with the same levels, blocks and aspect ratio, and random weights. Both chains get
the same noise. They agree to 1e-4 in fp32; no chain needs one in float64 as a judge.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.diffusers_chain import network_of, ours, theirs
from tests.support.hub_configs import Entry, drawn, entries, reduced, sampler_of, table

TOLERANCE = 1e-4
SHORT = 25
# Drawn with all steps: google's numerics, those of a small network, the course's with cosine betas, DDIM with RGBA.
ALL_STEPS = ("1-google-ddpm-cifar10-32", "10-diffusers-ddpm_dummy", "17-hub-19", "47-hub-55")
DOCUMENT = Path(__file__).parents[4] / "docs" / "checkpoints.md"
BEGIN, END = "<!-- table of configurations: written by a test -->", "<!-- end of the table -->"


def difference(entry: Entry, **fields: Any) -> float:  # noqa: ANN401
    """Returns the largest difference of a pixel between our chain and that of diffusers."""
    spec, diffusion = entry.read()
    sampler = sampler_of(spec, diffusion, **fields)
    small = reduced(spec)
    network = network_of(small)
    config = dict(entry.scheduler or {})
    here, there = ours(network, small, sampler), theirs(network, small, config, sampler)
    assert here.shape == there.shape == (2, *small.image_shape)
    return float((here - there).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("entry", drawn(), ids=lambda entry: entry.id)
def test_a_configuration_is_drawn_as_diffusers_draws_it(entry: Entry) -> None:
    assert difference(entry, steps=min(SHORT, entry.read()[1].timesteps)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in drawn() if entry.id in ALL_STEPS], ids=lambda entry: entry.id)
def test_all_steps_of_a_chain_are_those_of_diffusers(entry: Entry) -> None:
    assert difference(entry, steps=entry.read()[1].timesteps) < TOLERANCE


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("entry", drawn(), ids=lambda entry: entry.id)
def test_all_steps_of_every_configuration(entry: Entry) -> None:
    assert difference(entry, steps=entry.read()[1].timesteps) < TOLERANCE


def test_every_pixel_network_is_drawn() -> None:
    # Of a score SDE (fourier), of a fork (adm), with a condition joined to the image, without blocks, or of no UNet.
    reasons = {
        "time_embedding_type is fourier",
        "guided-diffusion (ADM)",
        "condition that is joined",
        "scheduler is ScoreSdeVeScheduler",
        "scheduler is UnCLIPScheduler",
        "lacks its blocks",
        "not that of a known network",
    }
    refused = [entry for entry in entries() if entry.unet is not None and entry not in drawn()]
    for entry in refused:
        with pytest.raises(Exception) as error:  # noqa: PT011 - the message is compared below
            entry.read()
        assert any(reason in str(error.value) for reason in reasons), (entry.id, error.value)
    assert len(drawn()) == 27


def test_the_table_in_the_documentation_is_current() -> None:
    """`WRITE_TABLE=1 pytest` with this test writes it."""
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    current = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if os.environ.get("WRITE_TABLE"):
        DOCUMENT.write_text(current)
    assert text == current


def test_the_networks_of_the_oracle_see_every_step() -> None:
    """The tolerance means something: the network decides pixels far more than it allows."""
    entry = drawn()[0]
    spec, diffusion = entry.read()
    small, sampler = reduced(spec), sampler_of(spec, diffusion, steps=5)
    network = network_of(small)
    first = ours(network, small, sampler)
    network.time_embedding.linear_2.bias.add_(0.1)
    assert float((ours(network, small, sampler) - first).abs().max()) > 100 * TOLERANCE
    assert not torch.isnan(first).any()
