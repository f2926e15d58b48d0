"""Compares the Triton kernels with the noise and the DDPM sampler of `ddpm_inference`."""

from __future__ import annotations

from itertools import product

import torch
from noise_kernel import FusedStep, ddpm_table, random_words
from reference import KNOWN_ANSWERS
from torch import Tensor

from ddpm_inference.job import SamplerSpec, Variance
from ddpm_inference.sampling.noise import INITIAL_TIMESTEP, NoiseSource, philox4x32_10, round_keys
from ddpm_inference.sampling.samplers import sample
from ddpm_inference.sampling.schedule import schedule

NOISE_TOLERANCE = 2e-6
"""log, sin and cos of the CPU, of CUDA and of numpy differ by rounding, for normal values up to 6."""
CHAIN_TOLERANCE = 1e-4
CASES = (
    (0, torch.arange(8), (1, 28, 28)),
    (2**63 - 1, torch.tensor([0, 7, 2**32 + 5, 10**12]), (3, 32, 32)),
    (5, torch.arange(3), (1, 5, 5)),
    (5, torch.arange(2), (1, 1, 1)),
)
STEPS = (0, 1, 999, INITIAL_TIMESTEP)
CHAINS = tuple(product(((1, 28, 28), (3, 8, 8)), ("large", "small"), (False, True), (12,)))
SEEDS = (0, 2**63 - 1, 0xDEADBEEF00000001)

# Triton's interpreter takes about a tenth of a second for each program of a launch.
SHORT_CASES = ((2**63 - 1, torch.tensor([7, 10**12]), (3, 4, 4)), (5, torch.arange(1), (1, 5, 5)))
SHORT_CHAINS = (((1, 6, 6), "large", False, 3), ((3, 4, 4), "small", True, 3))


def check_kernels(device: str, *, short: bool) -> dict[str, bool]:
    """Returns which comparisons hold; `short` makes fewer, for the interpreter."""
    cases, steps = (SHORT_CASES, STEPS[1::2]) if short else (CASES, STEPS)
    noise = [noise_difference(*case, step, device) for case, step in product(cases, steps)]
    chains = [chain_difference(*chain, device) for chain in (SHORT_CHAINS if short else CHAINS)]
    seeds = SEEDS[-1:] if short else SEEDS
    return {
        "kernel words equal the known answers": all(
            random_words(torch.tensor(counter).view(4, 1), seed, device).flatten().tolist() == list(words)
            for counter, seed, words in KNOWN_ANSWERS
        ),
        "kernel words equal torch's": all(words_equal(seed, device) for seed in seeds),
        f"kernel noise is within {NOISE_TOLERANCE} of torch's": max(noise) < NOISE_TOLERANCE,
        f"kernel chains are within {CHAIN_TOLERANCE} of the sampler's": max(chains) < CHAIN_TOLERANCE,
        "kernel update keeps NaN": update_keeps_nan(device),
    }


def words_equal(seed: int, device: str) -> bool:
    counters = torch.randint(0, 2**32, (4, 500), generator=torch.Generator().manual_seed(1))
    return torch.equal(random_words(counters, seed, device), philox4x32_10(counters, round_keys(seed)))


def noise_difference(seed: int, samples: Tensor, shape: tuple[int, int, int], step: int, device: str) -> float:
    """Returns the largest difference between the kernel's noise and that of torch on the CPU."""
    fused = FusedStep(seed, samples, shape, [step], torch.zeros(1, 5), device)
    return float((fused.noise().cpu() - NoiseSource(seed, samples, shape)(step)).abs().max())


def chain_difference(shape: tuple[int, int, int], variance: Variance, nhwc: bool, steps: int, device: str) -> float:
    """Returns the largest difference between a chain of kernel updates and `sample`, with an analytic network."""

    def eps_model(x: Tensor, t: int) -> Tensor:
        return torch.sin(3 * x) * 0.5 + x * 0.7

    made, samples = schedule("linear", 1000), torch.arange(100, 102)
    spec = SamplerSpec(name="ddpm", timesteps=1000, steps=steps, eta=0.0, schedule="linear", variance=variance)
    source = NoiseSource(9, samples, shape, device)
    expected = sample(eps_model, source.initial(), made, spec, noise=source)
    fused = FusedStep(9, samples, shape, *ddpm_table(made, steps, variance), device)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    x = source.initial().clone(memory_format=layout)
    for step in range(steps):
        fused.counter.fill_(step)
        fused.update(x, eps_model(x, step).contiguous(memory_format=layout), nhwc=nhwc)
    return float((x - expected).abs().max())


def update_keeps_nan(device: str) -> bool:
    x = torch.full((1, 1, 2, 2), torch.nan, device=device)
    fused = FusedStep(0, torch.arange(1), (1, 2, 2), [5], torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]]), device)
    fused.update(x, torch.zeros_like(x))
    return bool(x.isnan().all())
