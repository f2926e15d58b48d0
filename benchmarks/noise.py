"""Measures the cost of noise relative to the network's step, in a minute. Usage: python benchmarks/noise.py"""

from __future__ import annotations

import torch
from networks import GUIDE, shipped
from timing import machine, medians

from ddpm_inference.job import ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource

T = 500


def measure(spec: ModelSpec, batch: int) -> dict[str, float]:
    """Returns CPU seconds per sample and step."""
    eps = predictor(build(spec), spec, [T])
    noise, x = NoiseSource(0, torch.arange(batch), spec.image_shape), torch.randn(batch, *spec.image_shape)
    taken = medians({"randn": lambda: torch.randn_like(x), "philox": lambda: noise(T), "step": lambda: eps(x, T)})
    return {name: seconds / batch for name, seconds in taken.items()}


def main() -> None:
    print(f"{machine()}\n784 values a sample, one thread: us per sample-step, median")
    for title, spec in {"the shipped network": shipped(), "the guide's network": GUIDE}.items():
        print(
            f"{title}, {spec.name} {' '.join(map(str, spec.downs))}\n batch"
            + "".join(f"{name:>14}" for name in ("torch.randn", "Philox", "step", "share"))
        )
        for batch in (1, 16, 32, 64):
            taken = measure(spec, batch)
            row = "".join(f"{1e6 * seconds:14.2f}" for seconds in taken.values())
            print(f"{batch:6}{row}{taken['philox'] / taken['step']:14.1%}")


if __name__ == "__main__":
    main()
