"""What the noise costs beside the network's step: `python benchmarks/noise.py`; half a minute."""

from __future__ import annotations

import torch
from timing import machine, medians

from ddpm_inference.job import ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource

T = 500


def main() -> None:
    spec = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")
    eps = predictor(build(spec), spec, [T])
    print(f"{machine()}\n784 values a sample, one thread: us per sample-step, median")
    print("batch".rjust(6), *(name.rjust(14) for name in ("torch.randn", "Philox", "folded step", "share")))
    for batch in (1, 16, 32, 64):
        noise, x = NoiseSource(0, torch.arange(batch), spec.image_shape), torch.randn(batch, *spec.image_shape)
        taken = medians(
            {
                "randn": lambda x=x: torch.randn_like(x),
                "philox": lambda noise=noise: noise(T),
                "step": lambda x=x: eps(x, T),
            }
        )
        row = [f"{1e6 * seconds / batch:.2f}".rjust(14) for seconds in taken.values()]
        print(str(batch).rjust(6), *row, f"{taken['philox'] / taken['step']:.1%}".rjust(14))


if __name__ == "__main__":
    main()
