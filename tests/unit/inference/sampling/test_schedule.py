"""Schedules, compared with their published formulas and with other implementations."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_inference.diffusion_spec import GuideSchedule
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.sampling.schedule import MIN_ALPHA_CUMPROD, schedule, spaced

NAMES = get_args(GuideSchedule)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", [1, 2, 50, 1000, 4000])
def test_betas_are_variances_and_alphas_decrease(name: GuideSchedule, timesteps: int) -> None:
    made = schedule(name, timesteps)
    assert made.timesteps == timesteps
    assert made.betas.dtype == made.alphas_cumprod.dtype == np.float64
    assert made.betas.shape == made.alphas_cumprod.shape == (timesteps,)
    assert np.all((made.betas >= 0) & (made.betas <= 0.999))
    assert np.all(np.diff(made.alphas_cumprod) <= 0)
    assert np.all((made.alphas_cumprod > 0) & (made.alphas_cumprod <= 1))


@pytest.mark.parametrize("name", NAMES)
def test_alphas_cumprod_is_a_cumulative_product(name: GuideSchedule) -> None:
    made = schedule(name, 100)
    left = 1.0
    for beta, product in zip(made.betas, made.alphas_cumprod, strict=True):
        left *= 1.0 - float(beta)
        assert math.isclose(left, product, rel_tol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_is_read_only(name: GuideSchedule) -> None:
    made = schedule(name, 10)
    with pytest.raises(ValueError, match="read-only"):
        made.betas[0] = 0.5
    with pytest.raises(ValueError, match="read-only"):
        made.alphas_cumprod[0] = 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "diffusers_name"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
@pytest.mark.parametrize("timesteps", [10, 1000])
def test_linear_and_cosine_equal_those_of_diffusers(name: GuideSchedule, diffusers_name: str, timesteps: int) -> None:
    from diffusers import DDPMScheduler

    betas = DDPMScheduler(timesteps, beta_schedule=diffusers_name).betas.double().numpy()
    np.testing.assert_allclose(schedule(name, timesteps).betas, betas, rtol=1e-5, atol=1e-7)


def test_sigmoid_is_the_published_formula() -> None:
    t, start, end, tau = torch.linspace(0, 1000, 1001, dtype=torch.float64) / 1000, -3.0, 3.0, 1.0
    v_start, v_end = torch.tensor(start / tau).sigmoid().double(), torch.tensor(end / tau).sigmoid().double()
    products = (v_end - ((t * (end - start) + start) / tau).sigmoid()) / (v_end - v_start)
    products = products / products[0]
    betas = (1 - products[1:] / products[:-1]).clip(0, 0.999)
    np.testing.assert_allclose(schedule("sigmoid", 1000).betas, betas.numpy(), rtol=1e-4)


def test_cosine_origin_is_the_original_formula() -> None:
    betas = [0.02 * (1 - math.cos(math.pi / 2 * (t + 1e-4) / 1000) ** 2) for t in range(1000)]
    np.testing.assert_allclose(schedule("cosine_origin", 1000).betas, betas, rtol=1e-6, atol=1e-15)


def test_linear_goes_from_1e_4_to_0_02() -> None:
    betas = schedule("linear", 1000).betas
    assert (betas[0], betas[-1]) == (1e-4, 0.02)
    assert betas[500] - betas[499] == pytest.approx(0.0199 / 999)


def test_a_schedule_of_no_timesteps_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="0 timesteps"):
        schedule("linear", 0)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match="quadratic") as refused:
        schedule("quadratic", 10)  # type: ignore[arg-type]
    assert "cosine_origin" in refused.value.hint


@settings(deadline=None)
@given(st.integers(1, 3000), st.data())
def test_a_shorter_chain_starts_at_t_max_with_even_gaps(timesteps: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, timesteps))
    visited = spaced(timesteps, steps)
    assert len(visited) == steps
    assert visited[0] == timesteps - 1
    assert visited[-1] >= 0
    gaps = -np.diff([*visited, -1])
    assert np.all(gaps >= 1)
    assert np.all(np.abs(gaps - timesteps / steps) <= 1)


@pytest.mark.parametrize("timesteps", [1, 7, 1000])
def test_a_full_chain_visits_every_timestep(timesteps: int) -> None:
    assert spaced(timesteps, timesteps) == list(range(timesteps - 1, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3, 7, 50, 250, 999])
def test_spacing_equals_trailing_of_diffusers(steps: int) -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(1000, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert spaced(1000, steps) == theirs.timesteps.tolist()[:steps]


@pytest.mark.parametrize("steps", [0, -1, 11])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(InvalidSpec, match=f"{steps} steps"):
        spaced(10, steps)


@pytest.mark.parametrize("name", NAMES)
def test_alphas_stay_representable_however_many_timesteps(name: GuideSchedule) -> None:
    made = schedule(name, 100_000)
    assert np.all(made.alphas_cumprod >= MIN_ALPHA_CUMPROD)
    assert np.all(np.diff(made.alphas_cumprod) <= 0)
    assert np.isfinite(np.float32(7 * math.sqrt(1 / made.alphas_cumprod[-1])))


@pytest.mark.parametrize("timesteps", [1000, 17_000])
def test_the_bound_changes_no_schedule_that_float32_can_hold(timesteps: int) -> None:
    exact = np.cumprod(1.0 - np.linspace(1e-4, 0.02, timesteps))
    np.testing.assert_array_equal(schedule("linear", timesteps).alphas_cumprod, exact)
