"""Measures the network's step, eager, folded and compiled, in a minute or two, half of it for the compiler.

Usage: python benchmarks/network.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import machine, medians
from torch import Tensor

from ddpm_inference.job import ModelSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.samplers import EpsModel

T = 500


def eager(spec: ModelSpec) -> EpsModel:
    network = build(spec).eval()

    @torch.inference_mode()
    def eps(x: Tensor, t: int) -> Tensor:
        result: Tensor = network(x, torch.full((len(x),), t))
        return result

    return eps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", choices=("Unet", "SimpleUnet"), default="Unet")
    parser.add_argument("--downs", type=int, nargs="+", default=(8, 16, 32))
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 16, 32, 64))
    options = parser.parse_args()
    spec = ModelSpec(name=options.name, downs=options.downs, time_emb_dim=4, img_size=28, time_embedding="step")
    network = build(spec).eval()
    models = {
        "eager": eager(spec),
        "folded": predictor(network, spec, [T]),
        "compiled": predictor(network, spec, [T], execution="compiled"),
        "folded bf16": predictor(network, spec, [T], precision="bf16"),
    }
    print(f"{machine()}\n{spec.name} {spec.downs}, 28x28, one thread: ms per sample-step, median")
    print("batch".rjust(6), *(name.rjust(12) for name in models), "eager/folded".rjust(14))
    for batch in options.batches:
        x = torch.randn(batch, *spec.image_shape)

        def call(eps: EpsModel, x: Tensor = x) -> Callable[[], object]:
            return lambda: eps(x, T)

        taken = medians({name: call(eps) for name, eps in models.items()})
        row = [f"{1e3 * seconds / batch:.3f}".rjust(12) for seconds in taken.values()]
        print(str(batch).rjust(6), *row, f"{taken['eager'] / taken['folded']:.2f}".rjust(14))


if __name__ == "__main__":
    main()
