"""Images that are no digits, made from noise or from digits: what the judge's eleventh class is trained on.

Every maker takes digits (labels and all) and a generator, and gives as many images, float32 (N, 1, 28, 28) in
[0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from digits import Digits
from torch import Generator, Tensor
from torch.nn import functional as F

PATCH = 7


def noise(digits: Digits, generator: Generator) -> Tensor:
    """Uniform, Gaussian, black-and-white and blurred noise, in turn."""
    shape = digits.images.shape
    uniform = torch.rand(shape, generator=generator)
    gaussian = 0.5 + 0.5 * torch.randn(shape, generator=generator)
    density = torch.rand(shape[0], 1, 1, 1, generator=generator)
    binary = (uniform < density).float()
    blurred = 0.5 + 3 * (F.avg_pool2d(uniform, 5, stride=1, padding=2) - 0.5)
    kinds = torch.stack([uniform, gaussian, binary, blurred])
    return kinds[torch.arange(shape[0]) % 4, torch.arange(shape[0])].clamp(0, 1)


def blank(digits: Digits, generator: Generator) -> Tensor:
    """One grey level each, half of them black, with noise of up to 5 % on it."""
    count = len(digits.images)
    level = torch.rand(count, 1, 1, 1, generator=generator) * (torch.arange(count) % 2).view(-1, 1, 1, 1)
    grain = torch.rand(count, 1, 1, 1, generator=generator) * 0.05
    return (level + grain * torch.randn(digits.images.shape, generator=generator)).clamp(0, 1)


def shuffled(digits: Digits, generator: Generator) -> Tensor:
    """The pixels of a digit in random order; in every second image its 16 patches of 7x7 instead."""
    flat = digits.images.flatten(1)
    pixels = flat.gather(1, torch.rand(flat.shape, generator=generator).argsort(1)).view_as(digits.images)
    tiles = F.unfold(digits.images, PATCH, stride=PATCH)
    order = torch.rand(len(tiles), 1, tiles.shape[2], generator=generator).argsort(2)
    patches = F.fold(tiles.gather(2, order.expand_as(tiles)), (28, 28), PATCH, stride=PATCH)
    every_second = (torch.arange(len(flat)) % 2).bool().view(-1, 1, 1, 1)
    return torch.where(every_second, patches, pixels)


def halves(digits: Digits, generator: Generator) -> Tensor:
    """The upper (or left) half of a digit over (beside) the lower (right) half of one of another class."""
    other = _of_another_class(digits, generator)
    row = torch.arange(28).view(1, 1, 28, 1) < 14
    upper = torch.where(row, digits.images, other)
    left = torch.where(row.transpose(2, 3), digits.images, other)
    every_second = (torch.arange(len(other)) % 2).bool().view(-1, 1, 1, 1)
    return torch.where(every_second, left, upper)


def blends(digits: Digits, generator: Generator) -> Tensor:
    """A digit and one of another class, faded into one another or, in every second image, drawn over it."""
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
    """Decoys of all kinds, as many of each as evenly goes."""
    kinds = len(MAKERS)
    parts = [Digits(digits.images[i::kinds], digits.labels[i::kinds]) for i in range(kinds)]
    return torch.cat([make(part, generator) for make, part in zip(MAKERS.values(), parts, strict=True)])


def _of_another_class(digits: Digits, generator: Generator) -> Tensor:
    """For each digit the image of one, among the same, whose label differs.

    Raises:
        ValueError: if all digits are of one class.
    """
    differs = digits.labels[:, None] != digits.labels[None, :]
    if not differs.any(1).all():
        raise ValueError("all digits are of one class: there is no other to put beside them")
    chosen = torch.multinomial(differs.float(), 1, generator=generator)[:, 0]
    return digits.images[chosen]
