"""Samplers, compared with data whose optimal network is known in closed form, and with chains written from the papers'
equations. `test_samplers_against_diffusers` compares them with diffusers."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from ddpm_inference.diffusion_spec import GuideSchedule
from ddpm_inference.job import ModelSpec, SamplerName, SamplerSpec
from ddpm_inference.models import build
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import SAMPLERS, EpsModel, Noise, sample
from ddpm_inference.sampling.schedule import Schedule, schedule, spaced
from tests.support.samplers import SHAPE, no_noise, spec_of

ALL_SPECS = [
    pytest.param(spec_of("ddpm", 40, 40, variance="large"), id="ddpm-large"),
    pytest.param(spec_of("ddpm", 40, 40, variance="small"), id="ddpm-small"),
    pytest.param(spec_of("ddpm", 40, 9, variance="large"), id="ddpm-large-respaced"),
    pytest.param(spec_of("ddpm", 40, 9, variance="small"), id="ddpm-small-respaced"),
    pytest.param(spec_of("ddim", 40, 40), id="ddim-full"),
    pytest.param(spec_of("ddim", 40, 10), id="ddim"),
    pytest.param(spec_of("ddim", 40, 10, eta=0.5), id="ddim-eta-0.5"),
    pytest.param(spec_of("ddim", 40, 10, eta=1.0), id="ddim-eta-1"),
    pytest.param(spec_of("dpmpp", 40, 40), id="dpmpp-full"),
    pytest.param(spec_of("dpmpp", 40, 10), id="dpmpp"),
    pytest.param(spec_of("dpmpp", 40, 2), id="dpmpp-two-steps"),
    pytest.param(spec_of("dpmpp", 40, 1), id="dpmpp-one-step"),
]
ONE_OF_EACH = [
    pytest.param(spec_of("ddpm", 40, 9, variance="small"), id="ddpm"),
    pytest.param(spec_of("ddim", 40, 10, eta=0.5), id="ddim"),
    pytest.param(spec_of("dpmpp", 40, 10), id="dpmpp"),
]


class TestGaussianData:
    """Pixels are N(MEAN, STD²): the optimal network is linear, E[eps | x_t] = √(1-ᾱ) (x_t - √ᾱ μ) /
    (ᾱ σ² + 1 - ᾱ), and samples must have the same mean and deviation. 1.0 is 3.5 deviations away, so the clamp has
    no visible effect."""

    MEAN, STD = 0.3, 0.2
    VALUES = 32 * 784

    def sampled(self, spec: SamplerSpec) -> Tensor:
        made = schedule(spec.schedule, spec.timesteps)

        def eps(x: Tensor, t: int) -> Tensor:
            acp = float(made.alphas_cumprod[t])
            return (x - math.sqrt(acp) * self.MEAN) * (math.sqrt(1 - acp) / (acp * self.STD**2 + 1 - acp))

        noise = NoiseSource(11, torch.arange(32), (1, 28, 28))
        return sample(eps, noise.initial(), made, spec, noise=noise)

    # The deviations of the exact chain, in units of STD: linear maps and independent noise keep a Gaussian, so its
    # variance follows v' = a² v + σ_t² from v = 1. They approach 1 with more steps. Short chains are below 1, because
    # the last step goes to E[x_0 | x_t], which has less variance than x_0.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("spec", "deviation"),
        [
            pytest.param(spec_of("ddpm", 1000, 1000, variance="large"), 1.0046, id="ddpm-large"),
            pytest.param(spec_of("ddpm", 1000, 1000, variance="small"), 0.9815, id="ddpm-small"),
            pytest.param(spec_of("ddpm", 1000, 100, variance="small"), 0.8734, id="ddpm-100"),
            pytest.param(spec_of("ddpm", 1000, 100, variance="small", curve="cosine"), 0.9268, id="ddpm-cosine"),
            pytest.param(spec_of("ddim", 1000, 1000), 0.9925, id="ddim-1000"),
            pytest.param(spec_of("ddim", 1000, 50), 0.8690, id="ddim-50"),
            pytest.param(spec_of("ddim", 1000, 50, eta=1.0), 0.7952, id="ddim-50-eta-1"),
            pytest.param(spec_of("ddim", 1000, 50, curve="cosine"), 0.9327, id="ddim-50-cosine"),
            pytest.param(spec_of("dpmpp", 1000, 1000), 0.9994, id="dpmpp-1000"),
            pytest.param(spec_of("dpmpp", 1000, 100), 0.9890, id="dpmpp-100"),
            pytest.param(spec_of("dpmpp", 1000, 20), 0.7460, id="dpmpp-20"),
        ],
    )
    def test_samples_have_the_mean_and_deviation_of_the_data(self, spec: SamplerSpec, deviation: float) -> None:
        values = self.sampled(spec).double()
        # 4 standard errors of the estimate, plus 0.001 for the bias of the chain (at most 4e-4) and of the clamp.
        assert abs(float(values.mean()) - self.MEAN) < 4 * self.STD / math.sqrt(self.VALUES) + 0.001
        assert abs(float(values.std()) / self.STD - deviation) < 4 / math.sqrt(2 * self.VALUES) + 0.001


class TestTwoModes:
    """Pixels at -0.5 or 0.5, each ± 0.05: the optimal network is nonlinear, and known."""

    MODE, STD = 0.5, 0.05

    def eps(self, made: Schedule) -> EpsModel:
        def eps(x: Tensor, t: int) -> Tensor:
            acp = float(made.alphas_cumprod[t])
            variance = acp * self.STD**2 + 1 - acp
            right = torch.sigmoid(x * (2 * math.sqrt(acp) * self.MODE / variance))
            return (x - math.sqrt(acp) * self.MODE * (2 * right - 1)) * (math.sqrt(1 - acp) / variance)

        return eps

    def sampled(self, spec: SamplerSpec) -> Tensor:
        made = schedule(spec.schedule, spec.timesteps)
        noise = NoiseSource(5, torch.arange(32), SHAPE)
        return sample(self.eps(made), noise.initial(), made, spec, noise=noise)

    @pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
    @pytest.mark.parametrize("steps", [50, 200])
    def test_samples_are_at_the_modes_half_and_half(self, name: SamplerName, steps: int) -> None:
        values = self.sampled(spec_of(name, 1000, steps, variance="small"))
        assert float(((values.abs() - self.MODE).abs() < 4 * self.STD).float().mean()) > 0.99
        assert abs(float((values > 0).float().mean()) - 0.5) < 4 * 0.5 / math.sqrt(values.numel())

    def test_second_order_is_closer_to_the_exact_path(self) -> None:
        # The path of the probability flow from x_T to t = 99, before the last step, which both samplers share.
        def at_99(spec: SamplerSpec) -> Tensor:
            made = schedule(spec.schedule, spec.timesteps)
            seen: list[Tensor] = []

            def eps(x: Tensor, t: int) -> Tensor:
                seen.extend([x] if t == 99 else [])
                return self.eps(made)(x, t)

            sample(eps, NoiseSource(5, torch.arange(32), SHAPE).initial(), made, spec, noise=no_noise)
            return seen[0]

        exact = at_99(spec_of("ddim", 1000, 1000))
        first, second = (float((at_99(spec_of(name, 1000, 20)) - exact).abs().mean()) for name in ("ddim", "dpmpp"))
        assert second < 0.5 * first


def papers_chain(eps: EpsModel, x: Tensor, made: Schedule, spec: SamplerSpec, noise: Noise) -> Tensor:
    """Samples with the papers' equations, unsimplified.

    DDPM: 2006.11239 equations 6, 7, 15 with beta and alpha of the subsequence (2102.09672, section 4). DDIM:
    2010.02502 equation 12 with 16. DPM-Solver++: 2211.01095 algorithm 2 in λ, α and σ.
    """
    taus = spaced(spec.timesteps, spec.steps)
    acp = {t: torch.tensor(made.alphas_cumprod[t], dtype=torch.float64) for t in taus}
    acp[-1] = torch.tensor(1.0, dtype=torch.float64)
    buffer: list[tuple[Tensor, Tensor]] = []
    for t, s in zip(taus, [*taus[1:], -1], strict=True):
        x0 = ((x - (1 - acp[t]).sqrt() * eps(x, t)) / acp[t].sqrt()).clip(-1, 1)
        if s < 0:
            return x0
        if spec.name == "ddpm":
            beta, alpha = 1 - acp[t] / acp[s], acp[t] / acp[s]
            mean = acp[s].sqrt() * beta / (1 - acp[t]) * x0 + alpha.sqrt() * (1 - acp[s]) / (1 - acp[t]) * x
            beta_tilde = (1 - acp[s]) / (1 - acp[t]) * beta
            x = mean + (beta if spec.variance == "large" else beta_tilde).sqrt() * noise(t)
        elif spec.name == "ddim":
            e = (x - acp[t].sqrt() * x0) / (1 - acp[t]).sqrt()
            sigma = spec.eta * ((1 - acp[s]) / (1 - acp[t])).sqrt() * (1 - acp[t] / acp[s]).sqrt()
            x = acp[s].sqrt() * x0 + (1 - acp[s] - sigma**2).sqrt() * e
            if spec.eta > 0:
                x = x + sigma * noise(t)
        else:
            lam = {k: (v.sqrt() / (1 - v).sqrt()).log() for k, v in acp.items()}
            h = lam[s] - lam[t]
            d = x0
            if buffer:
                lam_before, x0_before = buffer[-1]
                r = (lam[t] - lam_before) / h
                d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
            x = ((1 - acp[s]) / (1 - acp[t])).sqrt() * x - acp[s].sqrt() * ((-h).exp() - 1) * d
            buffer.append((lam[t], x0))
    return x


def wavy_eps(x: Tensor, t: int) -> Tensor:
    """An arbitrary function that keeps some predictions of x_0 inside [-1, 1] and some outside."""
    return 0.8 * x + 0.3 * torch.sin(3 * x + t)


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_samplers_follow_the_papers_equations(spec: SamplerSpec) -> None:
    result = assert_papers_chain(spec)
    assert 0.1 < float((result.abs() < 1).float().mean()) < 1, "the clamp hides differences"


@pytest.mark.parametrize("curve", ["cosine", "cosine_origin", "sigmoid"])
@pytest.mark.parametrize("spec", ONE_OF_EACH)
def test_samplers_follow_the_equations_on_every_schedule(spec: SamplerSpec, curve: GuideSchedule) -> None:
    assert_papers_chain(spec.model_copy(update={"schedule": curve}))


def assert_papers_chain(spec: SamplerSpec) -> Tensor:
    """Compares a sampler with `papers_chain`, in float64 and in float32; returns its samples."""
    made = schedule(spec.schedule, spec.timesteps)
    source = NoiseSource(1, torch.arange(16), SHAPE)

    def noise(t: int) -> Tensor:
        return source(t).double()

    x_t = source.initial().double()
    expected = papers_chain(wavy_eps, x_t, made, spec, noise)
    ours = sample(wavy_eps, x_t, made, spec, noise=noise)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    # In float32 the first prediction divides rounding errors by √ᾱ_T; later ones are smaller.
    single = sample(wavy_eps, x_t.float(), made, spec, noise=source)
    assert single.dtype == torch.float32
    tolerance = 1e-5 + 1e-6 / math.sqrt(made.alphas_cumprod[-1])
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=tolerance)
    return ours


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_results_are_clamped_and_x_t_is_unchanged(spec: SamplerSpec) -> None:
    noise = NoiseSource(0, torch.arange(4), SHAPE)
    x_t = noise.initial()
    before = x_t.clone()
    result = sample(lambda x, t: -3 * x, x_t, schedule("linear", spec.timesteps), spec, noise=noise)
    assert torch.equal(x_t, before)
    assert result.dtype == torch.float32
    assert result.shape == x_t.shape
    assert float(result.abs().max()) == 1.0


@pytest.mark.parametrize("spec", ALL_SPECS)
def test_noise_and_progress_are_called_once_a_step(spec: SamplerSpec) -> None:
    drawn: list[int] = []
    visited: list[int] = []
    progress: list[tuple[int, int]] = []

    def noise(t: int) -> Tensor:
        drawn.append(t)
        return torch.zeros(2, *SHAPE)

    def eps(x: Tensor, t: int) -> Tensor:
        visited.append(t)
        return 0.5 * x

    sample(
        eps,
        torch.ones(2, *SHAPE),
        schedule("linear", spec.timesteps),
        spec,
        noise=noise,
        callback=lambda done, steps: progress.append((done, steps)),
    )
    assert visited == spaced(spec.timesteps, spec.steps)
    stochastic = spec.name == "ddpm" or spec.eta > 0
    assert drawn == (visited[:-1] if stochastic else [])
    assert progress == [(i + 1, spec.steps) for i in range(spec.steps)]


@pytest.mark.parametrize("name", list(SAMPLERS))
@pytest.mark.parametrize(
    ("curve", "timesteps", "steps"),
    [("linear", 1, 1), ("linear", 2, 2), ("cosine", 4000, 7), ("cosine_origin", 4000, 3), ("sigmoid", 4000, 3)],
)
def test_chains_of_any_length_stay_finite(name: SamplerName, curve: GuideSchedule, timesteps: int, steps: int) -> None:
    noise = NoiseSource(0, torch.arange(2), SHAPE)
    spec = spec_of(name, timesteps, steps, curve=curve)
    result = sample(lambda x, t: 0.9 * x, noise.initial(), schedule(curve, timesteps), spec, noise=noise)
    assert bool(result.isfinite().all())


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_vanishing_first_beta_stays_finite(name: SamplerName) -> None:
    made = schedule("cosine_origin", 4000)
    assert made.alphas_cumprod[0] == 1.0
    tail = Schedule("cosine_origin", made.betas[:30], made.alphas_cumprod[:30])
    noise = NoiseSource(0, torch.arange(2), SHAPE)
    spec = spec_of(name, 30, 30, curve="cosine_origin")
    assert bool(sample(lambda x, t: 0.9 * x, noise.initial(), tail, spec, noise=noise).isfinite().all())


class TestBits:
    """At one batch shape the bits of a sample depend neither on its row, nor on its neighbours, nor on padding."""

    BATCH = 8

    @pytest.fixture(scope="class")
    @staticmethod
    def eps() -> EpsModel:
        torch.manual_seed(0)
        spec = ModelSpec(name="Unet", downs=(5, 6), time_emb_dim=3, img_size=10, time_embedding="step")
        network = build(spec).eval()

        @torch.no_grad()
        def eps(x: Tensor, t: int) -> Tensor:
            result: Tensor = network(x, torch.full((len(x),), t))
            return result + 0.7 * x

        return eps

    def sampled(self, eps: EpsModel, spec: SamplerSpec, samples: list[int]) -> Tensor:
        noise = NoiseSource(9, torch.tensor(samples), (1, 10, 10))
        return sample(eps, noise.initial(), schedule("linear", spec.timesteps), spec, noise=noise)

    @pytest.mark.parametrize("spec", ONE_OF_EACH)
    def test_a_sample_has_the_same_bits_in_any_batch(self, eps: EpsModel, spec: SamplerSpec) -> None:
        full = self.sampled(eps, spec, list(range(self.BATCH)))
        again = self.sampled(eps, spec, list(range(self.BATCH)))
        backwards = self.sampled(eps, spec, list(range(self.BATCH))[::-1])
        assert torch.equal(full, again)
        assert torch.equal(full, backwards.flip(0))
        padded = self.sampled(eps, spec, [5] + [10**9] * (self.BATCH - 1))
        assert torch.equal(padded[0], full[5])
        assert not torch.equal(full[0], full[5])


@pytest.mark.parametrize("name", get_args(GuideSchedule))
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("timesteps", [1, 6000, 20_000, 100_000])
def test_samples_are_finite_however_many_timesteps(name: GuideSchedule, sampler: SamplerName, timesteps: int) -> None:
    made = schedule(name, timesteps)
    for steps in sorted({min(steps, timesteps) for steps in (1, 2, 50)}):
        for eta in (0.0, 1.0) if sampler == "ddim" else (0.0,):
            spec = spec_of(sampler, timesteps, steps, eta=eta, curve=name)
            noise = NoiseSource(5, torch.arange(2), (1, 4, 4))
            samples = sample(lambda x, t: x * 0.9, noise.initial(), made, spec, noise=noise)
            assert bool(((samples >= -1) & (samples <= 1)).all()), spec
