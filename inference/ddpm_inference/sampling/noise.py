"""Stateless noise: every value is a function of (seed, sample index, timestep, pixel) and of nothing else.

A counter-based generator has no position to carry, so batches, shards, retries and the order of work cannot change
the noise of a sample. The random words have the same bits everywhere; the normal values computed from them go
through log, sin and cos, and differ between kinds of device by float rounding. `job.NOISE_VERSION` is the version of
this scheme, and must be raised with every change of a value.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddpm_inference.errors import InvalidSpec

INITIAL_TIMESTEP = 2**32 - 1  # stands for the timestep of x_T: larger than any other

_WORD_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def round_keys(seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Returns the ten round keys of Philox4x32-10 for a seed of up to 64 bits: (10, 2) int64, low key word first."""
    key = (seed & _WORD_MASK, seed >> 32 & _WORD_MASK)
    words = [[(key[i] + r * _WEYL[i]) & _WORD_MASK for i in (0, 1)] for r in range(_ROUNDS)]
    return torch.tensor(words, dtype=torch.int64, device=device)


def philox4x32_10(counter: Tensor, keys: Tensor) -> Tensor:
    """Returns the random words of each counter: Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as
    1, 2, 3", SC 2011, section 3.3.

    Args:
        counter: (4, ...) int64, 32-bit words in 0..2^32-1; not changed.
        keys: (10, 2) int64, from `round_keys`.

    Returns:
        (4, ...) int64, words in 0..2^32-1.
    """
    row = (2,) + (1,) * (counter.dim() - 1)
    multipliers = torch.tensor(_MULTIPLIERS, dtype=torch.int64, device=counter.device).view(row)
    even, odd = counter[0::2], counter[1::2]
    for key in keys:
        # int64 wraps modulo 2^64, which keeps all 64 bits of the product. The shift extends its sign, so the mask
        # follows it. The lower halves are only xored, so they are masked once, at the end.
        product = (even * multipliers).flip(0)
        even = (product >> 32).bitwise_xor_(odd).bitwise_xor_(key.view(row)).bitwise_and_(_WORD_MASK)
        odd = product
    words = torch.empty_like(counter)
    words[0::2] = even
    torch.bitwise_and(odd, _WORD_MASK, out=words[1::2])
    return words


def uniform(words: Tensor) -> Tensor:
    """Maps random words (int64 in 0..2^32-1) to float32 in [2^-24, 1 - 2^-24]: the centres of 2^23 equal cells.

    23 bits, because with 24 the centre of the last cell would round to 1.
    """
    return (words >> 9).to(torch.float32).mul_(2.0**-23).add_(2.0**-24)


class NoiseSource:
    """Standard normal noise of one batch, by Philox4x32-10 and the Box-Muller transform.

    Pixel 4b+j (in C, H, W order) of sample i at timestep t comes from words of the counter (b, t, i mod 2^32,
    i div 2^32) under the key `seed`: words 0 and 1 make values j = 0, 1 as r cos and r sin, words 2 and 3 make
    j = 2, 3.

    Args:
        seed: 0..2^64-1.
        samples: (B,) int64, the sample index of each row; 0 or more, in any order, repeats allowed.
        shape: (C, H, W).
        device: of the noise.

    Raises:
        InvalidSpec: if the seed or a sample index is out of range.
    """

    def __init__(
        self, seed: int, samples: Tensor, shape: tuple[int, int, int], device: torch.device | str = "cpu"
    ) -> None:
        if not 0 <= seed < 2**64:
            raise InvalidSpec(f"the seed {seed} is out of range", hint="use 0 to 2^64 - 1")
        if samples.numel() and int(samples.min()) < 0:
            raise InvalidSpec(f"the sample index {int(samples.min())} is negative", hint="count samples from 0")
        self._shape = shape
        self._keys = round_keys(seed, device)
        rows = samples.to(device, torch.int64).view(-1, 1)
        blocks = torch.arange(-(-math.prod(shape) // 4), dtype=torch.int64, device=device)
        self._counter = torch.zeros(4, len(rows), len(blocks), dtype=torch.int64, device=device)
        self._counter[0] = blocks
        self._counter[2] = rows & _WORD_MASK
        self._counter[3] = rows >> 32

    def __call__(self, t: int) -> Tensor:
        """Returns the noise of timestep `t` (0..2^32-2, or `INITIAL_TIMESTEP` for x_T): (B, C, H, W) float32."""
        if not 0 <= t <= INITIAL_TIMESTEP:
            raise InvalidSpec(f"there is no noise for timestep {t}", hint="use a timestep, 0 or more")
        self._counter[1].fill_(t)
        u = uniform(philox4x32_10(self._counter, self._keys))
        radius = u[0::2].log_().mul_(-2.0).sqrt_()
        angle = u[1::2].mul_(2.0 * math.pi)
        _, rows, blocks = self._counter.shape
        noise = torch.empty(rows, blocks, 4, device=u.device)
        by_word = noise.permute(2, 0, 1)
        torch.mul(radius, angle.cos(), out=by_word[0::2])
        torch.mul(radius, angle.sin(), out=by_word[1::2])
        return noise.view(rows, -1)[:, : math.prod(self._shape)].reshape(rows, *self._shape)

    def initial(self) -> Tensor:
        """Returns x_T: (B, C, H, W) float32, the same for every sampler, schedule and number of steps."""
        return self(INITIAL_TIMESTEP)
