"""Noise schedules: how much noise each timestep adds, and which timesteps a shorter chain visits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpm_inference.diffusion_spec import CurveName
from ddpm_inference.errors import InvalidSpec

Array = NDArray[np.float64]

MAX_BETA = 0.999
MIN_ALPHA_CUMPROD = 2.0**-250
"""Below it the signal in x_t is smaller than the rounding of the noise, and √(1/ᾱ_t) x_t exceeds float32."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """A variance schedule of the forward process, arXiv 2006.11239, equations 2 and 4.

    Attributes:
        name: of its formula.
        betas: (T,) float64, read-only, each in [0, 1): the variance that timestep t adds.
        alphas_cumprod: (T,) float64, read-only, decreasing: prod_{s<=t} (1 - beta_s), at least `MIN_ALPHA_CUMPROD`.
            linear and cosine_origin reach that bound from T = 17,000 on.
    """

    name: CurveName
    betas: Array
    alphas_cumprod: Array

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas)


def schedule(name: CurveName, timesteps: int) -> Schedule:
    """Computes the named schedule over T = `timesteps` steps; `_FORMULAS` has the equations and their sources.

    Raises:
        InvalidSpec: if the name is unknown or T is below 1.
    """
    if name not in _FORMULAS:
        raise InvalidSpec(f"there is no schedule {name!r}", hint=f"use one of {', '.join(_FORMULAS)}")
    if timesteps < 1:
        raise InvalidSpec(f"a schedule of {timesteps} timesteps is empty", hint="use at least 1")
    betas = _FORMULAS[name](timesteps)
    alphas_cumprod = np.maximum(np.cumprod(1.0 - betas, dtype=np.float64), MIN_ALPHA_CUMPROD)
    betas.setflags(write=False)
    alphas_cumprod.setflags(write=False)
    return Schedule(name, betas, alphas_cumprod)


def spaced(timesteps: int, steps: int) -> list[int]:
    """Returns the timesteps of a chain of `steps` steps, decreasing; "trailing" spacing (arXiv 2305.08891, table 2).

    The chain begins at T-1, where x_T is pure noise, and its last step goes from about T/steps straight to x_0. On
    data with a known optimal network, spacing that is finer near 0 (quadratic) follows the exact path more closely.
    With the shipped network and 10 to 50 steps it yields fewer recognisable digits, because the shape of a digit is
    decided early. `steps` equal to `timesteps` gives T-1, ..., 1, 0.

    Raises:
        InvalidSpec: if `steps` is not within 1..T.
    """
    if not 1 <= steps <= timesteps:
        raise InvalidSpec(f"{steps} steps do not fit a schedule of {timesteps} timesteps", hint=f"use 1 to {timesteps}")
    return [round(i * timesteps / steps) - 1 for i in range(steps, 0, -1)]


def _linear(timesteps: int) -> Array:
    """beta from 1e-4 to 0.02 in equal steps: arXiv 2006.11239, section 4."""
    return np.linspace(1e-4, 0.02, timesteps, dtype=np.float64)


def _cosine(timesteps: int) -> Array:
    """alphas_cumprod = cos²(((t/T) + s) / (1 + s) * pi/2) with s = 0.008: arXiv 2102.09672, equation 17."""
    u = np.arange(timesteps + 1) / timesteps
    return _betas_from(np.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2)


def _cosine_origin(timesteps: int) -> Array:
    """beta_t = 0.02 * (1 - cos²(pi/2 * (t + 1e-4) / T)): what the guide's trainer calls cosine."""
    return 0.02 * np.sin(math.pi / 2 * (np.arange(timesteps) + 1e-4) / timesteps) ** 2


def _sigmoid(timesteps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Array:
    """alphas_cumprod = (σ(end/τ) - σ((u (end - start) + start)/τ)) / (σ(end/τ) - σ(start/τ)), u = t/T:
    arXiv 2212.11972, algorithm 1.
    """
    u = np.arange(timesteps + 1) / timesteps
    curve = 1.0 / (1.0 + np.exp(-(u * (end - start) + start) / tau))
    return _betas_from((curve[-1] - curve) / (curve[-1] - curve[0]))


def _betas_from(alphas_cumprod: Array) -> Array:
    """Returns beta_t = 1 - alphas_cumprod(t+1) / alphas_cumprod(t) of a curve on T+1 points, at most 0.999."""
    return np.clip(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], 0.0, MAX_BETA)


_FORMULAS: dict[CurveName, Callable[[int], Array]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_origin": _cosine_origin,
    "sigmoid": _sigmoid,
}
