"""The guide's `Unet`, eager and trainable: the reference for faster executions.

Module names are the keys of the original's checkpoints. Tensors are (B, C, H, W).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_inference.job import ModelSpec
from ddpm_inference.models.time_embedding import time_mlp

ATTENTION_DIM = 128
ATTENTION_HEADS = 8


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def _per_channel(values: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, 1)."""
    return values[:, :, None, None]


class ResBlock(nn.Module):
    """``x + conv2(relu(bn2(conv1(relu(bn1(x))) + lintemb(relu(t)))))``"""

    def __init__(self, channels: int, emb_dim: int) -> None:
        super().__init__()
        self.lintemb = nn.Linear(emb_dim, channels)
        self.conv1 = _conv3(channels, channels)
        self.conv2 = _conv3(channels, channels)
        self.bnorm1 = nn.BatchNorm2d(channels)
        self.bnorm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.bnorm1(x))) + _per_channel(self.lintemb(F.relu(emb)))
        result: Tensor = x + self.conv2(F.relu(self.bnorm2(h)))
        return result


class DownBlock(nn.Module):
    """``y = x + relu(conv2(bn2(conv1(relu(bn1(x))) + relu(lintemb(t)))))``; returns (y at half the size, y)."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int) -> None:
        super().__init__()
        self.lintemb = nn.Linear(emb_dim, inputs)
        self.bnorm1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv3(inputs, inputs)
        self.transform = nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
        self.conv2 = _conv3(inputs, inputs)
        self.bnorm2 = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv1(F.relu(self.bnorm1(x))) + _per_channel(F.relu(self.lintemb(emb)))
        y: Tensor = x + F.relu(self.conv2(self.bnorm2(h)))
        return self.transform(y), y


class UpBlock(nn.Module):
    """A `DownBlock` of twice the inputs (x and its skip), with a convolution on the residual path; returns y at twice
    the size."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int) -> None:
        super().__init__()
        self.lintemb = nn.Linear(emb_dim, inputs)
        self.bnorm1 = nn.BatchNorm2d(2 * inputs)
        self.conv1 = _conv3(2 * inputs, inputs)
        self.squish_conv = _conv3(2 * inputs, inputs)
        self.transform = nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1)
        self.conv2 = _conv3(inputs, inputs)
        self.bnorm2 = nn.BatchNorm2d(inputs)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.bnorm1(x))) + _per_channel(F.relu(self.lintemb(emb)))
        result: Tensor = self.transform(self.squish_conv(x) + F.relu(self.conv2(self.bnorm2(h))))
        return result


class AttentionBlock(nn.Module):
    """``x + proj(MHA(q(z), k(z), v(z)))`` over all pixels, with ``z = x + relu(lintemb(t))``, normalised or not.

    Two versions of the original differ in whether they apply `bnorm` to z; their keys are the same.
    """

    def __init__(self, channels: int, emb_dim: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = norm
        self.lintemb = nn.Linear(emb_dim, channels)
        self.bnorm = nn.BatchNorm2d(channels)
        self.k = nn.Linear(channels, ATTENTION_DIM)
        self.q = nn.Linear(channels, ATTENTION_DIM)
        self.v = nn.Linear(channels, ATTENTION_DIM)
        self.attention = nn.MultiheadAttention(ATTENTION_DIM, ATTENTION_HEADS, batch_first=True)
        self.proj = nn.Linear(ATTENTION_DIM, channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        z = x + _per_channel(F.relu(self.lintemb(emb)))
        if self.norm:
            z = self.bnorm(z)
        pixels = z.flatten(2).transpose(1, 2)
        mixed, _ = self.attention(self.q(pixels), self.k(pixels), self.v(pixels), need_weights=False)
        result: Tensor = x + self.proj(mixed).transpose(1, 2).reshape(x.shape)
        return result


class Unet(nn.Module):
    """eps(x, t) for x (B, C, H, W) and timesteps t int64 (B,); same shape as x.

    H and W must be multiples of `size_multiple`, because every level but the first halves them. Skips are consumed
    from the bottom up: the first up block gets the bottom as its skip, and the skip of the outermost down block is
    unused. The original does this, and checkpoints are trained with it.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        downs, emb_dim = spec.downs, 4 * spec.time_emb_dim
        outer, bottom = downs[0], downs[-1]
        self.pos_emb = time_mlp(spec.time_emb_dim, spec.time_embedding, nn.ReLU())
        self.init_conv = _conv3(spec.channels, outer // 2)
        self.init_res = ResBlock(outer // 2, emb_dim)
        self.init_conv2 = _conv3(outer // 2, outer)
        self.downsampling = nn.ModuleList(DownBlock(i, o, emb_dim) for i, o in pairwise(downs))
        self.resint1 = ResBlock(bottom, emb_dim)
        self.bnorm = nn.BatchNorm2d(bottom)
        self.attention_int = AttentionBlock(bottom, emb_dim, norm=spec.attention_norm)
        self.resint2 = ResBlock(bottom, emb_dim)
        self.upsampling = nn.ModuleList(UpBlock(i, o, emb_dim) for i, o in pairwise(downs[::-1]))
        self.bnorm_out = nn.BatchNorm2d(outer)
        self.out_conv = nn.Conv2d(outer, spec.channels, kernel_size=1)

    @staticmethod
    def size_multiple(levels: int) -> int:
        """Returns what the height and width of an image must be a multiple of."""
        return 1 << (levels - 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        emb = self.pos_emb(t)
        x = outermost = self.init_conv2(self.init_res(self.init_conv(x), emb))
        skips = []
        for down in self.downsampling:
            x, skip = down(x, emb)
            skips.append(skip)
        bottom = x
        x = F.relu(self.bnorm(self.attention_int(self.resint1(x, emb), emb)))
        x = self.resint2(x, emb) + bottom
        for up, skip in zip(self.upsampling, [bottom, *reversed(skips)], strict=False):
            x = up(torch.cat([x, skip], dim=1), emb)
        result: Tensor = self.out_conv(F.relu(self.bnorm_out(x + outermost)))
        return result
