"""The noise schedule of a chain: the guide's in float64, or that of a scheduler of diffusers in float32, as there.

diffusers computes betas and alphas_cumprod in float32, and so does this module, with the same operations of torch: a
chain of a thousand steps shows the rounding of the smallest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ddpm_inference.diffusion_spec import Diffusion
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import SamplerSpec
from ddpm_inference.sampling.schedule import MAX_BETA, Schedule, schedule

SMALLEST_ALPHA_CUMPROD = 2.0**-24
"""Instead of 0 at the last timestep of a zero-SNR schedule, for samplers that divide by it; diffusers has the same."""


def schedule_of(spec: SamplerSpec) -> Schedule:
    """Returns the schedule that `spec` describes.

    Raises:
        InvalidSpec: if it lacks what its schedule needs.
    """
    if spec.diffusion is None:
        return schedule(spec.schedule, spec.timesteps)
    betas = _betas(spec, spec.diffusion)
    if spec.diffusion.zero_snr:
        betas = _rescaled(betas)
    alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
    if spec.diffusion.zero_snr and spec.name not in ("ddpm", "ddim"):
        alphas_cumprod[-1] = SMALLEST_ALPHA_CUMPROD
    arrays = [values.double().numpy() for values in (betas, alphas_cumprod)]
    for array in arrays:
        array.setflags(write=False)
    return Schedule(spec.schedule, *arrays)


def _betas(spec: SamplerSpec, diffusion: Diffusion) -> Tensor:
    """Returns the betas, float32 (T,): diffusers 0.42, schedulers/scheduling_ddpm.py, `DDPMScheduler.__init__`."""
    total = spec.timesteps
    start, end = diffusion.beta_start, diffusion.beta_end
    match spec.schedule:
        case "trained" if diffusion.trained_betas is not None:
            return torch.tensor(diffusion.trained_betas, dtype=torch.float32)
        case "linear" if start is not None and end is not None:
            return torch.linspace(start, end, total, dtype=torch.float32)
        case "scaled_linear" if start is not None and end is not None:
            return torch.linspace(start**0.5, end**0.5, total, dtype=torch.float32) ** 2
        case "sigmoid_betas" if start is not None and end is not None:
            return torch.sigmoid(torch.linspace(-6, 6, total)) * (end - start) + start
        case "squaredcos_cap_v2" | "laplace" | "exp":
            return _betas_of_curve(_CURVES[spec.schedule], total)
        case "cosine" | "cosine_origin" | "sigmoid":
            return torch.from_numpy(schedule(spec.schedule, total).betas.astype(np.float32))
        case _:
            raise InvalidSpec(f"the schedule {spec.schedule} lacks its betas")


def _betas_of_curve(curve: Callable[[float], float], total: int) -> Tensor:
    """Returns beta_t = 1 - curve((t+1)/T) / curve(t/T), at most 0.999: diffusers' `betas_for_alpha_bar`."""
    values = [min(1 - curve((t + 1) / total) / curve(t / total), MAX_BETA) for t in range(total)]
    return torch.tensor(values, dtype=torch.float32)


def _squaredcos(u: float) -> float:
    """arXiv 2102.09672, equation 17."""
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(u: float) -> float:
    """√(snr / (1 + snr)) with a Laplace distribution of ln snr: arXiv 2407.03297, as diffusers has it."""
    log_snr = -0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * math.fabs(0.5 - u) + 1e-6)
    snr = math.exp(log_snr)
    return math.sqrt(snr / (1 + snr))


def _exp(u: float) -> float:
    """e^(-12 u)."""
    return math.exp(u * -12.0)


_CURVES = {"squaredcos_cap_v2": _squaredcos, "laplace": _laplace, "exp": _exp}


def _rescaled(betas: Tensor) -> Tensor:
    """Rescales betas so that the last alphas_cumprod is 0: arXiv 2305.08891, algorithm 1."""
    roots = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    roots = (roots - last) * (first / (first - last))
    alphas_cumprod = roots**2
    alphas = torch.cat([alphas_cumprod[0:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return 1 - alphas
