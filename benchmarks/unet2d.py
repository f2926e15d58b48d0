"""Measures a UNet2DModel's step: diffusers, eager and compiled, and ours. Usage: python benchmarks/unet2d.py

One thread, fp32 unless it says otherwise, in one process and in turns. Takes some minutes, half of them for the
compiler.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from timing import machine, medians
from torch import Tensor

from ddpm_inference.job import UNet2DSpec
from ddpm_inference.models.families import Predictor, family_of

T = 500
SHAPES: dict[str, dict[str, Any]] = {
    "course 32x32": {
        "block_out_channels": (64, 128, 128, 256),
        "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
    "CIFAR 32x32": {
        "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
}


def diffusers(spec: UNet2DSpec, *, compiled: bool) -> Predictor:
    """Returns diffusers' own evaluation."""
    network = family_of(spec).build(spec).eval()
    module = torch.compile(network, fullgraph=True, dynamic=False) if compiled else network

    @torch.inference_mode()
    def predict(x: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
        result: Tensor = module(x, torch.full((len(x),), int(t)), return_dict=False)[0]
        return result

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=tuple(SHAPES))
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 16))
    parser.add_argument("--no_compiler", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    for shape in options.shapes:
        spec = UNet2DSpec(sample_size=(32, 32), **SHAPES[shape])
        family = family_of(spec)
        network = family.build(spec).eval()

        def ours(family: Any = family, network: Any = network, spec: Any = spec, **choice: Any) -> Predictor:  # noqa: ANN401
            chosen = {"precision": "fp32", "execution": "folded", **choice}
            made: Predictor = family.predictor(network, spec, [T], device="cpu", **chosen)
            return made

        models = {"diffusers": diffusers(spec, compiled=False), "ours": ours(), "ours bf16": ours(precision="bf16")}
        if not options.no_compiler:
            models |= {
                "diffusers compiled": diffusers(spec, compiled=True),
                "ours compiled": ours(execution="compiled"),
            }
        print(f"{shape}: ms per sample-step, median")
        print("batch".rjust(6), *(name.rjust(20) for name in models))
        for batch in options.batches:
            x = torch.randn(batch, *spec.image_shape)

            def call(predict: Predictor, x: Tensor = x) -> Callable[[], object]:
                return lambda: predict(x, T)

            taken = medians({name: call(predict) for name, predict in models.items()})
            print(str(batch).rjust(6), *(f"{1e3 * seconds / batch:.2f}".rjust(20) for seconds in taken.values()))


if __name__ == "__main__":
    main()
