"""Which timesteps a chain visits, as diffusers' scheduler classes choose them ("spacing", arXiv 2305.08891, table 2).

`schedule.spaced` is the guide's own spacing. The classes differ in details, which are kept: with the same number of
steps, ``dpmpp`` and ``unipc`` cut the timesteps into one part more than ``ddpm`` and ``ddim``, and leave out the last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ddpm_inference.diffusion_spec import Diffusion
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import SamplerName, SamplerSpec
from ddpm_inference.sampling.schedule import spaced

Floats = NDArray[np.float64]


def timesteps_of(spec: SamplerSpec, last: int | None = None) -> list[float]:
    """Returns the timesteps at which the network is evaluated, decreasing.

    They are whole numbers, except for ``heun`` with the spacing linspace.

    Args:
        last: T, or less if the chain begins later (`Solver.lambda_min_clipped`).

    Raises:
        InvalidSpec: if the number of steps does not fit T, or a timestep is outside the schedule.
    """
    if spec.diffusion is None:
        return [*spaced(spec.timesteps, spec.steps)]
    timesteps = _spaced(spec.name, spec.diffusion, spec.timesteps, last or spec.timesteps, spec.steps)
    if not (timesteps.min() >= 0 and timesteps.max() < spec.timesteps):
        raise InvalidSpec(
            f"{spec.steps} steps with the spacing {spec.diffusion.spacing} and steps_offset "
            f"{spec.diffusion.steps_offset} visit timestep {timesteps.max():g}, and the last of the schedule is "
            f"{spec.timesteps - 1}",
            hint="use fewer steps, or --steps_offset 0",
        )
    return [int(t) if t == int(t) else float(t) for t in timesteps]


def _spaced(name: SamplerName, diffusion: Diffusion, total: int, last: int, steps: int) -> Floats:
    match diffusion.spacing:
        case "trailing":
            return np.arange(last, 0, -total / steps)[:steps].round() - 1.0
        case "linspace" if name in ("ddpm", "ddim"):
            return np.linspace(0, total - 1, steps).round()[::-1]
        case "linspace" if name == "heun":
            return np.linspace(0, total - 1, steps, dtype=np.float32)[::-1].astype(np.float64)
        case "linspace":
            return np.linspace(0, last - 1, steps + 1).round()[::-1][:-1]
        case _:
            if name in ("ddpm", "ddim", "heun"):
                return np.arange(steps)[::-1] * (total // steps) + float(diffusion.steps_offset)
            return np.arange(steps + 1)[::-1][:-1] * (last // (steps + 1)) + float(diffusion.steps_offset)
