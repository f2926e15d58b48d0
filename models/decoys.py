"""Decoys: images that are not digits, made of noise or of digits, for the judge's eleventh class.

Every function takes digits with labels and a generator, and returns as many images, float32 (N, 1, 28, 28) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from digits import Digits
from torch import Generator, Tensor
from torch.nn import functional as F

PATCH = 7


def noise(digits: Digits, generator: Generator) -> Tensor:
    """Returns uniform, Gaussian, black-and-white and blurred noise, in turn."""
    shape = digits.images.shape
    uniform = torch.rand(shape, generator=generator)
    gaussian = 0.5 + 0.5 * torch.randn(shape, generator=generator)
    density = torch.rand(shape[0], 1, 1, 1, generator=generator)
    binary = (uniform < density).float()
    blurred = 0.5 + 3 * (F.avg_pool2d(uniform, 5, stride=1, padding=2) - 0.5)
    kinds = torch.stack([uniform, gaussian, binary, blurred])
    return kinds[torch.arange(shape[0]) % 4, torch.arange(shape[0])].clamp(0, 1)


def blank(digits: Digits, generator: Generator) -> Tensor:
    """Returns images of one grey level, half of them black, with noise of up to 5 %."""
    count = len(digits.images)
    level = torch.rand(count, 1, 1, 1, generator=generator) * (torch.arange(count) % 2).view(-1, 1, 1, 1)
    grain = torch.rand(count, 1, 1, 1, generator=generator) * 0.05
    return (level + grain * torch.randn(digits.images.shape, generator=generator)).clamp(0, 1)


def shuffled(digits: Digits, generator: Generator) -> Tensor:
    """Shuffles the pixels of each digit, or in every second image its 16 patches of 7x7."""
    flat = digits.images.flatten(1)
    pixels = flat.gather(1, torch.rand(flat.shape, generator=generator).argsort(1)).view_as(digits.images)
    tiles = F.unfold(digits.images, PATCH, stride=PATCH)
    order = torch.rand(len(tiles), 1, tiles.shape[2], generator=generator).argsort(2)
    patches = F.fold(tiles.gather(2, order.expand_as(tiles)), (28, 28), PATCH, stride=PATCH)
    every_second = (torch.arange(len(flat)) % 2).bool().view(-1, 1, 1, 1)
    return torch.where(every_second, patches, pixels)


def halves(digits: Digits, generator: Generator) -> Tensor:
    """Joins the upper (or left) half of each digit with the lower (right) half of a digit of another class."""
    other = _of_another_class(digits, generator)
    row = torch.arange(28).view(1, 1, 28, 1) < 14
    upper = torch.where(row, digits.images, other)
    left = torch.where(row.transpose(2, 3), digits.images, other)
    every_second = (torch.arange(len(other)) % 2).bool().view(-1, 1, 1, 1)
    return torch.where(every_second, left, upper)


def blends(digits: Digits, generator: Generator) -> Tensor:
    """Blends each digit with a digit of another class, by averaging or, in every second image, by their maximum."""
    other = _of_another_class(digits, generator)
    share = 0.35 + 0.3 * torch.rand(len(other), 1, 1, 1, generator=generator)
    faded = share * digits.images + (1 - share) * other
    every_second = (torch.arange(len(other)) % 2).bool().view(-1, 1, 1, 1)
    return torch.where(every_second, torch.maximum(digits.images, other), faded)


MAKERS: dict[str, Callable[[Digits, Generator], Tensor]] = {
    "noise": noise,
    "blank": blank,
    "shuffled": shuffled,
    "halves": halves,
    "blends": blends,
}


def mixed(digits: Digits, generator: Generator) -> Tensor:
    """Returns decoys of all kinds in equal parts."""
    kinds = len(MAKERS)
    parts = [Digits(digits.images[i::kinds], digits.labels[i::kinds]) for i in range(kinds)]
    return torch.cat([make(part, generator) for make, part in zip(MAKERS.values(), parts, strict=True)])


def _of_another_class(digits: Digits, generator: Generator) -> Tensor:
    """Returns for each digit the image of a random one of `digits` with another label.

    Raises:
        ValueError: if all digits are of one class.
    """
    differs = digits.labels[:, None] != digits.labels[None, :]
    if not differs.any(1).all():
        raise ValueError("all digits are of one class: decoys need two")
    chosen = torch.multinomial(differs.float(), 1, generator=generator)[:, 0]
    return digits.images[chosen]
