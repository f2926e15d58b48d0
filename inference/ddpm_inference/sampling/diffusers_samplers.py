"""Samplers that compute what diffusers' scheduler classes compute, for pipelines and for the settings that they have.

`samplers` has the samplers of the guide's networks. The differences: a prediction may be v or x_0 instead of the noise,
x_0 may be clamped to any range, thresholded or neither, and the noise of a DDIM step is the network's own, not that of
the clamped x_0. Coefficients of ``ddpm``, ``ddim`` and ``heun`` are computed in float32, as diffusers does: near t = 0 it
loses half of the digits of a beta, and a float64 chain would differ by 5e-4. As in `samplers`, every operation on images
is a separate one, so that the bits of a row do not depend on its place in the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm_inference.diffusion_spec import Diffusion, Solver, Thresholding
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import SamplerSpec
from ddpm_inference.sampling.grid import timesteps_of
from ddpm_inference.sampling.schedule import Schedule
from ddpm_inference.sampling.types import Callback, Model, Noise

MIN_VARIANCE = np.float32(1e-20)
"""Of the posterior, whose logarithm is taken; diffusers has the same."""


class Step(NamedTuple):
    """One step of ``ddpm`` or ``ddim``: from timestep t, where ᾱ is `acp`, to where it is `acp_next`."""

    t: float
    acp: np.float32
    acp_next: np.float32


def _diffusion(spec: SamplerSpec) -> Diffusion:
    if spec.diffusion is None:
        raise InvalidSpec(f"the sampler {spec.name} has no settings of a scheduler")
    return spec.diffusion


def _split(prediction: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Splits the prediction of 2C channels into what is predicted and the variance.

    Raises:
        InvalidSpec: if it has neither C nor 2C channels: it must not be broadcast.
    """
    channels = x.shape[1]
    if prediction.shape[1] == channels:
        return prediction, None
    if prediction.shape[1] != 2 * channels:
        raise InvalidSpec(f"the network predicts {prediction.shape[1]} channels of an image with {channels}")
    return prediction[:, :channels], prediction[:, channels:]


def denoised(x: Tensor, predicted: Tensor, alpha: float, sigma: float, diffusion: Diffusion) -> Tensor:
    """Returns x_0 before it is clamped: (x_t - σ ε)/α, α x_t - σ v, or the prediction; α = √ᾱ, σ = √(1-ᾱ)."""
    match diffusion.prediction:
        case "epsilon":
            return (x - predicted * sigma).div_(alpha)
        case "v_prediction":
            return (x * alpha).sub_(predicted * sigma)
        case "sample":
            return predicted


def predicted_noise(x: Tensor, predicted: Tensor, alpha: float, sigma: float, diffusion: Diffusion) -> Tensor:
    """Returns the noise in x_t: ε, α v + σ x_t, or (x_t - α x_0)/σ."""
    match diffusion.prediction:
        case "epsilon":
            return predicted
        case "v_prediction":
            return (predicted * alpha).add_(x * sigma)
        case "sample":
            return (x - predicted * alpha).div_(sigma)


def limited(x0: Tensor, diffusion: Diffusion) -> Tensor:
    """Thresholds x_0, or clamps it, or neither."""
    if diffusion.thresholding is not None:
        return thresholded(x0, diffusion.thresholding)
    return x0 if diffusion.clip_range is None else x0.clamp(-diffusion.clip_range, diffusion.clip_range)


def thresholded(x0: Tensor, thresholding: Thresholding) -> Tensor:
    """Clamps each sample to ±s and divides it by s: arXiv 2205.11487, section 2.3.

    Row by row, since torch limits the size of what it takes a quantile of.
    """
    limits = torch.stack([row.abs().flatten().quantile(thresholding.ratio) for row in x0])
    s = limits.clamp(1.0, thresholding.max_value)[:, None, None, None]
    return x0.clamp(-s, s).div_(s)


def _chain(schedule: Schedule, spec: SamplerSpec) -> list[Step]:
    """Returns the steps of ``ddpm``, or ``ddim``, whose step always spans T // steps timesteps."""
    diffusion = _diffusion(spec)
    acp = schedule.alphas_cumprod.astype(np.float32)
    timesteps = [int(t) for t in timesteps_of(spec)]
    one = np.float32(1.0)
    if spec.name == "ddpm":
        following = [*timesteps[1:], -1]
        final = one
    else:
        following = [t - spec.timesteps // spec.steps for t in timesteps]
        final = one if diffusion.set_alpha_to_one else acp[0]
    return [Step(t, acp[t], acp[after] if after >= 0 else final) for t, after in zip(timesteps, following, strict=True)]


def sample_ddpm(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples ancestrally, as diffusers' DDPMScheduler (schedulers/scheduling_ddpm.py, `step`): arXiv 2006.11239,
    equation 7. A learned variance lies between the two others, in logarithms: arXiv 2102.09672, equation 15.

    Noise is added wherever t > 0, so also in the last step of a chain that ends above 0.
    """
    diffusion = _diffusion(spec)
    x = x_T
    for done, (t, acp, acp_next) in enumerate(_chain(schedule, spec), start=1):
        predicted, learned = _split(model(x, t), x)
        alpha_t = acp / acp_next
        beta_t = 1 - alpha_t
        x0 = limited(denoised(x, predicted, float(np.sqrt(acp)), float(np.sqrt(1 - acp)), diffusion), diffusion)
        x0_part = x0 * float(np.sqrt(acp_next) * beta_t / (1 - acp))
        x = (x * float(np.sqrt(alpha_t) * (1 - acp_next) / (1 - acp))).add_(x0_part)
        if t > 0:
            posterior = max((1 - acp_next) / (1 - acp) * beta_t, MIN_VARIANCE)
            if spec.variance == "learned_range":
                if learned is None:
                    raise InvalidSpec("the network predicts no variance")
                fraction = learned.add(1.0).div_(2.0)
                log_variance = fraction * float(np.log(beta_t))
                log_variance.add_((1.0 - fraction) * float(np.log(posterior)))
                x.add_(log_variance.mul_(0.5).exp_().mul_(noise(int(t))))
            else:
                x.add_(noise(int(t)) * float(np.sqrt(beta_t if spec.variance == "large" else posterior)))
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
    """Samples as diffusers' DDIMScheduler (schedulers/scheduling_ddim.py, `step`): arXiv 2010.02502, equation 12."""
    diffusion = _diffusion(spec)
    x = x_T
    for done, (t, acp, acp_next) in enumerate(_chain(schedule, spec), start=1):
        predicted, _ = _split(model(x, t), x)
        alpha, sigma = float(np.sqrt(acp)), float(np.sqrt(1 - acp))
        x0 = limited(denoised(x, predicted, alpha, sigma, diffusion), diffusion)
        eps = predicted_noise(x, predicted, alpha, sigma, diffusion)
        variance = (1 - acp_next) / (1 - acp) * (1 - acp / acp_next)
        deviation = np.float32(spec.eta) * np.sqrt(variance)
        direction = np.sqrt(max(np.float32(0.0), 1 - acp_next - deviation**2))
        x = (x0 * float(np.sqrt(acp_next))).add_(eps * float(direction))
        if spec.eta > 0:
            x.add_(noise(int(t)) * float(deviation))
        if callback is not None:
            callback(done, spec.steps)
    return x


class Level(NamedTuple):
    """A noise level: x_t = α x_0 + σ ε, and λ = ln(α/σ), infinite without noise."""

    alpha: float
    sigma: float
    lam: float

    @classmethod
    def of(cls, ratio: float) -> Level:
        """Returns the level at which σ/α is `ratio`."""
        alpha = 1.0 / math.sqrt(ratio**2 + 1.0)
        return cls(alpha, ratio * alpha, -math.log(ratio) if ratio > 0 else math.inf)


def _ratios(schedule: Schedule) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Returns σ/α of every timestep, float32, as diffusers has it."""
    acp = schedule.alphas_cumprod.astype(np.float32)
    return np.sqrt((1 - acp) / acp)


def levels(schedule: Schedule, spec: SamplerSpec, solver: Solver) -> tuple[list[float], list[Level]]:
    """Returns the timesteps of a multistep chain, and its levels, one more: that after the last step."""
    ratios = _ratios(schedule)
    last = spec.timesteps
    if solver.lambda_min_clipped is not None:
        last -= int(np.searchsorted(-np.log(ratios)[::-1], solver.lambda_min_clipped))
        if last < 1:
            raise InvalidSpec(f"lambda_min_clipped {solver.lambda_min_clipped} leaves no timestep")
    timesteps = timesteps_of(spec, last)
    found = [Level.of(float(ratios[int(t)])) for t in timesteps]
    return timesteps, [*found, Level.of(0.0 if solver.final_sigma == "zero" else float(ratios[0]))]


def sample_dpmpp(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples as diffusers' DPMSolverMultistepScheduler with ``dpmsolver++``: arXiv 2211.01095, algorithm 2, with its
    first order where there is no earlier step, and at the end as `Solver` says. Draws no noise."""
    diffusion = _diffusion(spec)
    solver = diffusion.solver or Solver(type="midpoint")
    timesteps, steps = levels(schedule, spec, solver)
    count = len(timesteps)
    x = x_T
    earlier: Tensor | None = None
    for index, t in enumerate(timesteps):
        here, after = steps[index], steps[index + 1]
        predicted, _ = _split(model(x, t), x)
        x0 = limited(denoised(x, predicted, here.alpha, here.sigma, diffusion), diffusion)
        h = after.lam - here.lam
        ends_low = solver.euler_at_final or (solver.lower_order_final and count < 15) or solver.final_sigma == "zero"
        factor = -after.alpha * math.expm1(-h)
        x = (x * (after.sigma / here.sigma)).add_(x0 * factor)
        if solver.order > 1 and earlier is not None and not (index == count - 1 and ends_low):
            h_before = here.lam - steps[index - 1].lam
            if h_before > 0 and h > 0:
                slope = (x0 - earlier).mul_(h / h_before)
                second = 0.5 * factor if solver.type == "midpoint" else after.alpha * (math.expm1(-h) / h + 1.0)
                x.add_(slope.mul_(second))
        earlier = x0
        if callback is not None:
            callback(index + 1, count)
    return x


def sample_unipc(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples as diffusers' UniPCMultistepScheduler, which predicts x_0: arXiv 2302.04867, algorithms 5 to 8. Every
    evaluation also corrects the step before (UniC). Draws no noise."""
    diffusion = _diffusion(spec)
    solver = diffusion.solver or Solver(type="bh2")
    timesteps, steps = levels(schedule, spec, solver)
    count = len(timesteps)
    x = before = x_T
    known: list[Tensor] = []  # x_0 of the last two steps, the later one last
    order = 0
    for index, t in enumerate(timesteps):
        here = steps[index]
        predicted, _ = _split(model(x, t), x)
        x0 = limited(denoised(x, predicted, here.alpha, here.sigma, diffusion), diffusion)
        if index > 0 and index - 1 not in solver.disable_corrector:
            x = _unipc_step(before, known, steps[: index + 1], order, solver, corrected_by=x0)
        known = [*known[-1:], x0]
        order = min(solver.order, count - index) if solver.lower_order_final else solver.order
        order = min(order, index + 1)
        before = x
        x = _unipc_step(x, known, steps[: index + 2], order, solver)
        if callback is not None:
            callback(index + 1, count)
    return x


def _unipc_step(
    x: Tensor, known: list[Tensor], levels: list[Level], order: int, solver: Solver, corrected_by: Tensor | None = None
) -> Tensor:
    """Returns x at the last of `levels`, from x at the one before: UniP, or UniC if `corrected_by` is given, which is
    the x_0 predicted at the last level."""
    after, here = levels[-1], levels[-2]
    m0 = known[-1]
    h = after.lam - here.lam
    if math.isinf(h):
        return m0
    phi = math.expm1(-h)
    scale = -h if solver.type == "bh1" else phi
    result = (x * (after.sigma / here.sigma)).sub_(m0 * (after.alpha * phi))
    ratio, slope = 1.0, None
    if order > 1:
        ratio = (levels[-3].lam - here.lam) / h
        slope = (known[-2] - m0).div_(ratio)
    if corrected_by is None:
        if slope is not None:
            result.sub_(slope.mul_(0.5 * after.alpha * scale))
        return result
    # The coefficients of arXiv 2302.04867, equation 9, for one or two differences.
    phi_1 = phi / -h - 1.0
    phi_2 = phi_1 / -h - 0.5
    if slope is None:
        rho = 0.5
    else:
        rhos = np.linalg.solve(np.array([[1.0, 1.0], [ratio, 1.0]]), np.array([phi_1, 2.0 * phi_2]) / scale)
        result.sub_(slope.mul_(float(rhos[0]) * after.alpha * scale))
        rho = float(rhos[1])
    return result.sub_((corrected_by - m0).mul_(rho * after.alpha * scale))


def sample_heun(
    model: Model,
    x_T: Tensor,  # noqa: N803
    schedule: Schedule,
    spec: SamplerSpec,
    *,
    noise: Noise,
    callback: Callback | None = None,
) -> Tensor:
    """Samples as diffusers' HeunDiscreteScheduler: arXiv 2206.00364, algorithm 1 (with γ = 0), in x/α, with σ/α as the
    time. Each step but the last evaluates the network twice. Draws no noise."""
    diffusion = _diffusion(spec)
    timesteps = timesteps_of(spec)
    ratios = _ratios(schedule)
    ratio_at = np.interp(timesteps, np.arange(len(ratios)), ratios).astype(np.float32)
    times = [*ratio_at, np.float32(0.0)]
    start = times[0] if diffusion.spacing != "leading" else np.sqrt(times[0] ** 2 + 1)
    x = x_T * float(start)

    def derivative(x: Tensor, t: float, ratio: np.float32) -> Tensor:
        scale = np.sqrt(ratio**2 + 1)
        predicted, _ = _split(model(x / float(scale), t), x)
        match diffusion.prediction:
            case "epsilon":
                x0 = x - predicted * float(ratio)
            case "v_prediction":
                x0 = (predicted * float(-ratio / scale)).add_(x / float(ratio**2 + 1))
            case "sample":
                x0 = predicted
        return (x - limited(x0, diffusion)).div_(float(ratio))

    for index, t in enumerate(timesteps):
        here, after = times[index], times[index + 1]
        slope = derivative(x, t, here)
        predicted_x = x + slope * float(after - here)
        if after > 0:
            second = derivative(predicted_x, timesteps[index + 1], after)
            predicted_x = x + slope.add_(second).mul_(float(np.float32(0.5) * (after - here)))
        x = predicted_x
        if callback is not None:
            callback(index + 1, len(timesteps))
    return x
