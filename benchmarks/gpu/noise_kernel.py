# ruff: noqa: ANN001, ANN201, ANN202 - Triton infers the types of kernel arguments at the call
"""Triton kernels for the part of a sampling step outside the network, keyed by (seed, sample, step, pixel).

`noise_kernel` computes ``NoiseSource(seed, samples, shape)(step)`` in one launch. `update_kernel` computes
x <- a x + b clamp(r x - s eps, -1, 1) + sigma z(step) in one launch. Coefficients and timestep come from device tables
indexed by a counter on the device, so that one CUDA graph serves every step.

With TRITON_INTERPRET=1, set before the import, the kernels run on the CPU.
"""

from __future__ import annotations

import math
import os

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from ddpm_inference.job import Variance
from ddpm_inference.sampling.samplers import chain
from ddpm_inference.sampling.schedule import Schedule

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BLOCK = 128
TWO_PI = 2 * math.pi
# fp fusion is off, because a fused multiply-add rounds differently from the eager sampler.
LAUNCH_OPTIONS: dict[str, object] = {} if INTERPRETED else {"enable_fp_fusion": False, "num_warps": 4}


@triton.jit
def _multiply_high_low(a, multiplier: tl.constexpr):
    """Returns the high and low halves of a 32 x 32 bit product."""
    product = a.to(tl.uint64) * tl.full((), multiplier, tl.uint64)
    return (product >> 32).to(tl.uint32), product.to(tl.uint32)


@triton.jit
def _philox4x32_10(c0, c1, c2, c3, k0, k1):
    """The generator of `ddpm_inference.sampling.noise.philox4x32_10`, on uint32."""
    for _ in tl.static_range(10):
        high0, low0 = _multiply_high_low(c0, 0xD2511F53)
        high1, low1 = _multiply_high_low(c2, 0xCD9E8D57)
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = k0 + tl.full((), 0x9E3779B9, tl.uint32)
        k1 = k1 + tl.full((), 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def _uniform(word):
    """Maps a word to (0, 1) as `noise.uniform` does; exact in float32, with or without a fused multiply-add."""
    return (word >> 9).to(tl.float32) * 1.1920928955078125e-07 + 5.9604644775390625e-08


@triton.jit
def _box_muller(word0, word1, TWO_PI: tl.constexpr, INTERPRETED: tl.constexpr):  # noqa: N803 - a constexpr
    u, angle = _uniform(word0), _uniform(word1) * TWO_PI
    if INTERPRETED:  # the interpreter has no libdevice; numpy's functions take its place
        radius = tl.sqrt(tl.log(u) * -2.0)
        return radius * tl.cos(angle), radius * tl.sin(angle)
    else:  # noqa: RET505 - the functions of torch's CUDA kernels; Triton compiles one branch of the two
        radius = tl.sqrt_rn(libdevice.log(u) * -2.0)
        return radius * libdevice.cos(angle), radius * libdevice.sin(angle)


@triton.jit
def words_kernel(out, c0, c1, c2, c3, k0, k1, n, BLOCK: tl.constexpr):  # noqa: N803
    """Random words (4, n) of n counters; for comparison with known answers."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    w0, w1, w2, w3 = _philox4x32_10(
        tl.load(c0 + i, mask).to(tl.uint32),
        tl.load(c1 + i, mask).to(tl.uint32),
        tl.load(c2 + i, mask).to(tl.uint32),
        tl.load(c3 + i, mask).to(tl.uint32),
        tl.load(k0).to(tl.uint32),
        tl.load(k1).to(tl.uint32),
    )
    tl.store(out + i, w0.to(tl.int64), mask)
    tl.store(out + n + i, w1.to(tl.int64), mask)
    tl.store(out + 2 * n + i, w2.to(tl.int64), mask)
    tl.store(out + 3 * n + i, w3.to(tl.int64), mask)


@triton.jit
def _noise_of_block(samples, key, row, block, step, TWO_PI: tl.constexpr, INTERPRETED: tl.constexpr):  # noqa: N803
    """Returns the noise of the four pixels of each block."""
    sample = tl.load(samples + row)
    k0 = tl.load(key).to(tl.uint32)
    k1 = tl.load(key + 1).to(tl.uint32)
    zero = tl.zeros_like(block).to(tl.uint32)
    w0, w1, w2, w3 = _philox4x32_10(
        block.to(tl.uint32),
        zero + step.to(tl.uint32),
        zero + (sample & 0xFFFFFFFF).to(tl.uint32),
        zero + (sample >> 32).to(tl.uint32),
        k0,
        k1,
    )
    z0, z1 = _box_muller(w0, w1, TWO_PI, INTERPRETED)
    z2, z3 = _box_muller(w2, w3, TWO_PI, INTERPRETED)
    return z0, z1, z2, z3


@triton.jit
def noise_kernel(
    out,
    samples,
    key,
    steps,
    counter,
    pixels,
    BLOCK: tl.constexpr,  # noqa: N803
    TWO_PI: tl.constexpr,  # noqa: N803
    INTERPRETED: tl.constexpr,  # noqa: N803
):
    """Writes noise to `out` (rows, pixels) float32. Grid: (rows, blocks / BLOCK); a lane computes four pixels."""
    row = tl.program_id(0)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    step = tl.load(steps + tl.load(counter))
    z0, z1, z2, z3 = _noise_of_block(samples, key, row, block, step, TWO_PI, INTERPRETED)
    pixel = block * 4
    target = out + row.to(tl.int64) * pixels + pixel
    tl.store(target, z0, pixel < pixels)
    tl.store(target + 1, z1, pixel + 1 < pixels)
    tl.store(target + 2, z2, pixel + 2 < pixels)
    tl.store(target + 3, z3, pixel + 3 < pixels)


@triton.jit
def _updated(x, eps, z, r, s, a, b, sigma):
    """One step of `sample_ddpm`, with its order of operations."""
    x0 = tl.clamp(x * r - eps * s, -1.0, 1.0, propagate_nan=tl.PropagateNan.ALL)
    return (x * a + x0 * b) + z * sigma


@triton.jit
def update_kernel(
    x,
    eps,
    samples,
    key,
    table,
    steps,
    counter,
    pixels,
    channels,
    area,
    NHWC: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    TWO_PI: tl.constexpr,  # noqa: N803
    INTERPRETED: tl.constexpr,  # noqa: N803
):
    """Updates x (rows, C*H*W) float32 in place.

    eps has any float dtype, and the memory format of x (NHWC: channels_last). `table` (n, 5) float32 holds r, s, a, b,
    sigma for each step; the last step has a = 0, b = 1, sigma = 0.
    """
    row = tl.program_id(0)
    block = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    i = tl.load(counter)
    step = tl.load(steps + i)
    r = tl.load(table + 5 * i)
    s = tl.load(table + 5 * i + 1)
    a = tl.load(table + 5 * i + 2)
    b = tl.load(table + 5 * i + 3)
    sigma = tl.load(table + 5 * i + 4)
    z0, z1, z2, z3 = _noise_of_block(samples, key, row, block, step, TWO_PI, INTERPRETED)
    base = row.to(tl.int64) * pixels
    for j in tl.static_range(4):
        pixel = block * 4 + j
        mask = pixel < pixels
        at = base + (pixel if not NHWC else (pixel % area) * channels + pixel // area)
        z = z0 if j == 0 else (z1 if j == 1 else (z2 if j == 2 else z3))
        x_t = tl.load(x + at, mask)
        eps_t = tl.load(eps + at, mask).to(tl.float32)
        tl.store(x + at, _updated(x_t, eps_t, z, r, s, a, b, sigma), mask)


class FusedStep:
    """Launches the kernels for one batch. `counter` (1,) int64 on the device selects the step.

    Args:
        seed, samples, shape: as for `NoiseSource`.
        steps: the timesteps of the chain.
        table: (len(steps), 5) float32, from `ddpm_table`.
    """

    def __init__(
        self, seed: int, samples: Tensor, shape: tuple[int, int, int], steps: list[int], table: Tensor, device: str
    ) -> None:
        self.samples = samples.to(device)
        self.shape = shape
        self.pixels = math.prod(shape)
        self.key = torch.tensor([seed & 0xFFFFFFFF, seed >> 32], dtype=torch.int64, device=device)
        self.steps = torch.tensor(steps, dtype=torch.int64, device=device)
        self.table = table.to(device)
        self.counter = torch.zeros(1, dtype=torch.int64, device=device)
        self._grid = (len(samples), triton.cdiv(triton.cdiv(self.pixels, 4), BLOCK))

    def noise(self) -> Tensor:
        """Returns the noise of the current step: (B, C, H, W) float32."""
        out = torch.empty(len(self.samples), *self.shape, device=self.samples.device)
        noise_kernel[self._grid](
            out,
            self.samples,
            self.key,
            self.steps,
            self.counter,
            self.pixels,
            BLOCK,
            TWO_PI,
            INTERPRETED,
            **LAUNCH_OPTIONS,
        )
        return out

    def update(self, x: Tensor, eps: Tensor, *, nhwc: bool = False) -> None:
        """Updates x in place, from the current step to the next. Does not advance the counter."""
        channels, height, width = self.shape
        update_kernel[self._grid](
            x,
            eps,
            self.samples,
            self.key,
            self.table,
            self.steps,
            self.counter,
            self.pixels,
            channels,
            height * width,
            nhwc,
            BLOCK,
            TWO_PI,
            INTERPRETED,
            **LAUNCH_OPTIONS,
        )


def random_words(counters: Tensor, seed: int, device: str) -> Tensor:
    """Returns the words of `words_kernel` for counters (4, n) int64, on the CPU."""
    n = counters.shape[1]
    counters = counters.to(device)
    out = torch.empty(4, n, dtype=torch.int64, device=device)
    key = torch.tensor([seed & 0xFFFFFFFF, seed >> 32], dtype=torch.int64, device=device)
    words_kernel[(triton.cdiv(n, 512),)](out, *counters, key[0:1], key[1:2], n, 512)
    return out.cpu()


def ddpm_table(made: Schedule, steps: int, variance: Variance) -> tuple[list[int], Tensor]:
    """Returns the timesteps of a DDPM chain, and its coefficients (steps, 5) float32 for `update_kernel`."""
    timesteps, rows = [], []
    for t, acp, acp_next in chain(made, steps):
        r, s = math.sqrt(1 / acp), math.sqrt(1 / acp - 1)
        if acp_next == 1.0:
            rows.append((r, s, 0.0, 1.0, 0.0))
        else:
            alpha = acp / acp_next
            beta = 1 - alpha
            posterior = (1 - acp_next) / (1 - acp)
            sigma = math.sqrt(beta if variance == "large" else beta * posterior)
            rows.append((r, s, math.sqrt(alpha) * posterior, math.sqrt(acp_next) * beta / (1 - acp), sigma))
        timesteps.append(t)
    return timesteps, torch.tensor(rows, dtype=torch.float64).float()
