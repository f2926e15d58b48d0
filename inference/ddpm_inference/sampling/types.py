"""The types that samplers share: the network as they see it, the noise, and the signature of a sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ddpm_inference.job import SamplerSpec
from ddpm_inference.sampling.schedule import Schedule

Model = Callable[[Tensor, float], Tensor]
"""(x_t (B, C, H, W) float32, t) -> the prediction, float32 of the same shape, or of 2C channels with a variance. The
labels of a network with classes are bound already."""
Noise = Callable[[int], Tensor]
Callback = Callable[[int, int], None]


class SampleFunction(Protocol):
    """Signature of every sampler.

    Args:
        model: (x_t (B, C, H, W) float32, t) -> the prediction, see `Model`.
        x_T: (B, C, H, W) float32, standard normal; not changed.
        schedule: the schedule that the network was trained with.
        spec: number of steps, and the sampler's own parameters (eta, variance, settings).
        noise: t -> standard normal noise of x_T's shape for the step from timestep t to the next. Called with the
            timestep, not the position in the chain; at most once for each.
        callback: called as (steps done, steps) after each step.

    Returns:
        x_0: (B, C, H, W) float32; in [-1, 1] for the guide's networks, see `Diffusion.clip_range` for others.

    Raises:
        InvalidSpec: if `spec.steps` does not fit the schedule.
    """

    def __call__(
        self,
        model: Model,
        x_T: Tensor,  # noqa: N803 - the papers' x_T
        schedule: Schedule,
        spec: SamplerSpec,
        *,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Tensor: ...
