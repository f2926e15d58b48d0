"""Samplers, compared with diffusers' schedulers, given our float64 alphas_cumprod, the same Unet and the same noise.

diffusers is imported in the tests: its import takes seconds, which a run of other tests need not wait for.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddpm_inference.job import ModelSpec, Variance
from ddpm_inference.models import build
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import EpsModel, sample
from ddpm_inference.sampling.schedule import schedule
from tests.support.samplers import SHAPE, no_noise, spec_of

pytestmark = pytest.mark.slow

T = 60


@pytest.fixture(scope="module")
def eps() -> EpsModel:
    torch.manual_seed(3)
    spec = ModelSpec(name="Unet", downs=(4, 8), time_emb_dim=4, img_size=8, time_embedding="step")
    network = build(spec).eval()

    @torch.no_grad()
    def eps(x: Tensor, t: int) -> Tensor:
        result: Tensor = network(x.float(), torch.full((len(x),), t))
        return result + 0.7 * x.float()

    return eps


@pytest.mark.parametrize(
    ("variance", "theirs", "steps"),
    [("large", "fixed_large", 12), ("small", "fixed_small", 60), ("small", "fixed_small", 12)],
)
def test_ddpm(eps: EpsModel, variance: Variance, theirs: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import DDPMScheduler
    from diffusers.schedulers import scheduling_ddpm

    made, noise = schedule("linear", T), NoiseSource(2, torch.arange(4), SHAPE)
    scheduler = DDPMScheduler(T, variance_type=theirs, clip_sample=True, timestep_spacing="trailing")
    scheduler.alphas_cumprod = torch.tensor(made.alphas_cumprod)
    scheduler.set_timesteps(steps)
    x = noise.initial()
    for t in scheduler.timesteps.tolist():
        # diffusers adds noise for every t above 0, also in the last step of a short chain. Ours ends at x_0.
        drawn = noise(t) if t >= T // steps else torch.zeros_like(x)
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
        x = scheduler.step(eps(x, t), t, x).prev_sample
    ours = sample(eps, noise.initial(), made, spec_of("ddpm", T, steps, variance=variance), noise=noise)
    torch.testing.assert_close(ours, x.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 12), (0.0, 2), (0.6, 60), (0.6, 12), (1.0, 12)])
def test_ddim(eps: EpsModel, eta: float, steps: int) -> None:
    from diffusers import DDIMScheduler

    made, noise = schedule("linear", T), NoiseSource(2, torch.arange(4), SHAPE)
    scheduler = DDIMScheduler(T, clip_sample=True, set_alpha_to_one=True, timestep_spacing="trailing")
    scheduler.alphas_cumprod = torch.tensor(made.alphas_cumprod)
    scheduler.set_timesteps(steps)
    x = noise.initial()
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(eps(x, t), t, x, eta=eta, use_clipped_model_output=True, variance_noise=noise(t)).prev_sample
    ours = sample(eps, noise.initial(), made, spec_of("ddim", T, steps, eta=eta), noise=noise)
    torch.testing.assert_close(ours, x.float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("steps", [60, 12, 2])
def test_dpmpp(eps: EpsModel, steps: int) -> None:
    from diffusers import DPMSolverMultistepScheduler

    made, noise = schedule("linear", T), NoiseSource(2, torch.arange(4), SHAPE)
    scheduler = DPMSolverMultistepScheduler(
        T,
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
        thresholding=True,  # with a maximum of 1 this is a plain clamp to [-1, 1]
        sample_max_value=1.0,
        timestep_spacing="trailing",
    )
    scheduler.alphas_cumprod = torch.tensor(made.alphas_cumprod)
    scheduler.set_timesteps(steps)
    x = noise.initial()
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(eps(x, t), t, x).prev_sample
    ours = sample(eps, noise.initial(), made, spec_of("dpmpp", T, steps), noise=no_noise)
    torch.testing.assert_close(ours, x.float(), rtol=0, atol=2e-5)
