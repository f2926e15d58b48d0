"""Samplers: from x_T to x_0. Here are those of the guide's networks, which predict the noise in x_t; `sample` chooses.

All samplers have the signature `types.SampleFunction`. Each step predicts x_0 from eps and clamps it to [-1, 1]; the
last prediction is the result. Coefficients are float64 scalars, applied by separate multiplications and additions,
whose rounding IEEE 754 fixes. A fused multiply-add, which some kernels use for parts of a tensor, would make the bits
of a row depend on its position in the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from ddpm_inference.job import SamplerName, SamplerSpec
from ddpm_inference.sampling import diffusers_samplers
from ddpm_inference.sampling.grid import timesteps_of
from ddpm_inference.sampling.schedule import Schedule, spaced
from ddpm_inference.sampling.types import Callback, Model, Noise, SampleFunction

EpsModel = Model


class Step(NamedTuple):
    """One step of a chain: from timestep t, where alphas_cumprod is `acp`, to where it is `acp_next` (1 for x_0)."""

    t: int
    acp: float
    acp_next: float


def chain(schedule: Schedule, steps: int) -> list[Step]:
    """Returns the steps from x_T to x_0."""
    visited = spaced(schedule.timesteps, steps)
    acp = [float(schedule.alphas_cumprod[t]) for t in visited]
    return [Step(*step) for step in zip(visited, acp, [*acp[1:], 1.0], strict=True)]


def predict_x0(x: Tensor, eps: Tensor, acp: float) -> Tensor:
    """Predicts x_0 = x_t / √ᾱ_t - √(1/ᾱ_t - 1) eps, clamped to [-1, 1]: arXiv 2006.11239, equation 15."""
    x0 = x * math.sqrt(1.0 / acp)
    return x0.sub_(eps * math.sqrt(1.0 / acp - 1.0)).clamp_(-1.0, 1.0)


def sample_ddpm(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples ancestrally, x_next ~ N(μ̃(x_t, x_0), σ²): arXiv 2006.11239, equation 7 and algorithm 2.

    Of a step, α = ᾱ_t / ᾱ_next and β = 1 - α; with fewer steps than timesteps these are the betas of the subsequence,
    arXiv 2102.09672, section 4 (equation 19). σ² is β (variance "large") or β (1 - ᾱ_next) / (1 - ᾱ_t) ("small").
    """
    x = x_T
    for done, (t, acp, acp_next) in enumerate(chain(schedule, spec.steps), start=1):
        x0 = predict_x0(x, model(x, t), acp)
        if acp_next == 1.0:
            x = x0
        else:
            alpha = acp / acp_next
            beta = 1.0 - alpha
            posterior_ratio = (1.0 - acp_next) / (1.0 - acp)
            sigma = math.sqrt(beta if spec.variance == "large" else beta * posterior_ratio)
            x0_part = x0 * (math.sqrt(acp_next) * beta / (1.0 - acp))
            x = (x * (math.sqrt(alpha) * posterior_ratio)).add_(x0_part).add_(noise(t) * sigma)
        if callback is not None:
            callback(done, spec.steps)
    return x


def sample_ddim(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples by DDIM: x_next = √ᾱ_next x_0 + √(1 - ᾱ_next - σ²) eps + σ z, where z is the noise and
    σ = η √((1 - ᾱ_next)/(1 - ᾱ_t)) √(1 - ᾱ_t/ᾱ_next): arXiv 2010.02502, equations 12 and 16.

    eps is recomputed from the clamped x_0, (x_t - √ᾱ_t x_0) / √(1 - ᾱ_t). Substituting it:
    x_next = d x_t + (√ᾱ_next - d √ᾱ_t) x_0 + σ z, with d = √((1 - ᾱ_next - σ²)/(1 - ᾱ_t)), which is `direction`.
    """
    x = x_T
    for done, (t, acp, acp_next) in enumerate(chain(schedule, spec.steps), start=1):
        x0 = predict_x0(x, model(x, t), acp)
        if acp_next == 1.0:
            x = x0
        else:
            sigma = spec.eta * math.sqrt((1.0 - acp_next) / (1.0 - acp) * (1.0 - acp / acp_next))
            # Rounding may leave less than 0, for example where ᾱ_t is tiny and η is 1.
            direction = math.sqrt(max(0.0, 1.0 - acp_next - sigma**2) / (1.0 - acp))
            x0_part = x0 * (math.sqrt(acp_next) - math.sqrt(acp) * direction)
            x = (x * direction).add_(x0_part)
            if sigma > 0.0:
                x.add_(noise(t) * sigma)
        if callback is not None:
            callback(done, spec.steps)
    return x


def sample_dpmpp(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples by DPM-Solver++(2M): x_next = (σ_next/σ_t) x_t - α_next (e^{-h} - 1) D, where α = √ᾱ and σ = √(1 - ᾱ):
    arXiv 2211.01095, algorithm 2.

    D = (1 + 1/(2r)) x_0 - 1/(2r) x_0', where x_0' is the prediction one step earlier, h and h' are the steps in
    λ = ln(α/σ), and r = h'/h. The first step, the last, where h is infinite, and one after h' = 0 are of first order:
    D = x_0. Draws no noise.
    """
    x = x_T
    x0_previous: Tensor | None = None
    h_previous = 0.0
    for done, (t, acp, acp_next) in enumerate(chain(schedule, spec.steps), start=1):
        x0 = predict_x0(x, model(x, t), acp)
        if acp_next == 1.0:
            x = x0
        else:
            h = 0.5 * (math.log(acp_next / (1.0 - acp_next)) - math.log(acp / (1.0 - acp)))
            weight = 0.5 * h / h_previous if h_previous else 0.0
            scale = -math.sqrt(acp_next) * math.expm1(-h)
            x = (x * math.sqrt((1.0 - acp_next) / (1.0 - acp))).add_(x0 * (scale * (1.0 + weight)))
            if x0_previous is not None:
                x.sub_(x0_previous * (scale * weight))
            x0_previous, h_previous = x0, h
        if callback is not None:
            callback(done, spec.steps)
    return x


def visited(schedule: Schedule, spec: SamplerSpec) -> list[float]:
    """Returns the timesteps at which `sample` evaluates the network, decreasing."""
    if spec.diffusion is None or spec.diffusion.solver is None:
        return timesteps_of(spec)
    return diffusers_samplers.levels(schedule, spec, spec.diffusion.solver)[0]


SAMPLERS: dict[SamplerName, SampleFunction] = {"ddpm": sample_ddpm, "ddim": sample_ddim, "dpmpp": sample_dpmpp}
"""Of the guide's networks, without settings of a scheduler."""
DIFFUSERS_SAMPLERS: dict[SamplerName, SampleFunction] = {
    "ddpm": diffusers_samplers.sample_ddpm,
    "ddim": diffusers_samplers.sample_ddim,
    "dpmpp": diffusers_samplers.sample_dpmpp,
    "heun": diffusers_samplers.sample_heun,
    "unipc": diffusers_samplers.sample_unipc,
}
"""Of pipelines, and of any network with settings of a scheduler (`SamplerSpec.diffusion`)."""


def sample(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Runs the sampler that `spec` names; see `SampleFunction`."""
    samplers = SAMPLERS if spec.diffusion is None else DIFFUSERS_SAMPLERS
    return samplers[spec.name](model, x_T, schedule, spec, noise=noise, callback=callback)
