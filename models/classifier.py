"""The judge's classifier: ten digits and a class of decoys; trained on real digits, never on samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import decoys
import torch
from digits import Digits
from rich.progress import track
from torch import Generator, Tensor, nn
from torch.nn import functional as F

DECOY = 10
MIN_CONFIDENCE = 0.9
FEATURES = 64

EPOCHS = 56
BATCH = 64
DECOYS = 40
DECOY_WEIGHT = 0.06
LEARNING_RATE = 2e-3


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] -> logits (B, 11): the digits, then decoy."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *_convolution(1, 24), *_convolution(24, 24), nn.MaxPool2d(2),
            *_convolution(24, 48), *_convolution(48, 48), nn.MaxPool2d(2),
        )  # fmt: skip
        self.squeeze = nn.Linear(48 * 7 * 7, FEATURES)
        self.decide = nn.Linear(FEATURES, DECOY + 1)

    def features(self, images: Tensor) -> Tensor:
        """Returns the last layer before the logits: (B, 64)."""
        return F.relu(self.squeeze(self.convolutions(images).flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.decide(F.dropout(self.features(images), 0.2, self.training))
        return logits


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


@torch.inference_mode()
def in_batches(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(images, 250)])


def accepted(classifier: Classifier, images: Tensor) -> Tensor:
    """Returns int64 (N,): the digit of each image with a confidence of at least 0.9, or -1."""
    confidence, digit = in_batches(classifier, images).softmax(1)[:, :DECOY].max(1)
    return torch.where(confidence >= MIN_CONFIDENCE, digit, -1)


def train(data: Digits, seed: int = 0) -> Classifier:
    """Trains a classifier, in two or three minutes on one core. Equal seeds give equal weights on one machine."""
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    classifier = Classifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    weights = torch.ones(DECOY + 1)
    weights[DECOY] = DECOY_WEIGHT
    steps = EPOCHS * (len(data.images) // BATCH)
    for step in track(range(steps), "training the judge"):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        if step % (len(data.images) // BATCH) == 0:
            order = torch.randperm(len(data.images), generator=generator)
        chosen = order[step % (len(data.images) // BATCH) * BATCH :][:BATCH]
        drawn = torch.randint(len(data.images), (DECOYS,), generator=generator)
        fakes = decoys.mixed(Digits(data.images[drawn], data.labels[drawn]), generator)
        # Digits and decoys are augmented alike, and half of both not at all: artefacts of the augmentation must not
        # distinguish them.
        images = torch.cat([data.images[chosen], fakes])
        untouched = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(untouched, images, augmented(images, generator))
        labels = torch.cat([data.labels[chosen], torch.full((len(fakes),), DECOY)])
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = classifier(images.contiguous(memory_format=torch.channels_last))
        torch.autograd.backward(F.cross_entropy(logits.float(), labels, weights))
        optimizer.step()
    return classifier.eval()


def augmented(images: Tensor, generator: Generator) -> Tensor:
    """Rotates each image by up to 10 degrees, scales it by up to 10 %, shifts it by up to 2 pixels, and adds
    up to 5 % of noise: changes that keep its digit."""
    count = len(images)
    angle, scale, x, y = torch.rand(4, count, generator=generator) * 2 - 1
    angle, scale = angle * math.radians(10), 1 + 0.1 * scale
    first = torch.stack([scale * angle.cos(), -scale * angle.sin(), x * 2 / 14], 1)
    second = torch.stack([scale * angle.sin(), scale * angle.cos(), y * 2 / 14], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    grain = 0.05 * torch.rand(count, 1, 1, 1, generator=generator)
    moved = F.grid_sample(images, grid, align_corners=False)
    return (moved + grain * torch.randn(images.shape, generator=generator)).clamp(0, 1)
