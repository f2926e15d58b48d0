"""Sampler specs and noise sources for the tests of samplers."""

from __future__ import annotations

from torch import Tensor

from ddpm_inference.job import SamplerName, SamplerSpec, ScheduleName, Variance

# (C, H, W) of the images that these tests draw.
SHAPE = (1, 8, 8)


def spec_of(
    name: SamplerName,
    timesteps: int,
    steps: int,
    *,
    eta: float = 0.0,
    variance: Variance | None = None,
    curve: ScheduleName = "linear",
) -> SamplerSpec:
    return SamplerSpec(
        name=name,
        timesteps=timesteps,
        steps=steps,
        eta=eta,
        schedule=curve,
        variance=(variance or "large") if name == "ddpm" else None,
    )


def no_noise(t: int) -> Tensor:
    raise AssertionError(f"noise was drawn at timestep {t}")
