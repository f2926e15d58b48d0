"""The guide's `SimpleUnet`: residual blocks and linear attention after lucidrains' denoising-diffusion-pytorch.

The original computes a projection of the time embedding in every block, but never adds it. Its checkpoints contain
those weights (`pos_emb`, `mlp`), so they are declared here, but the output does not depend on t.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_inference.job import ModelSpec
from ddpm_inference.models.time_embedding import time_mlp

HEADS = 4
HEAD_DIM = 32
MEMORY_TOKENS = 4


class RMSNorm(nn.Module):
    """``x / ||x|| * sqrt(C) * g``, the norm over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = math.sqrt(channels)
        self.g = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.g * self.scale


class ConvBlock(nn.Module):
    """``silu(norm(proj(x)))``"""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.norm = RMSNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.proj(x)))


class ResnetBlock(nn.Module):
    """``res_conv(x) + block2(block1(x))``; `mlp` exists only for its keys in checkpoints."""

    def __init__(self, inputs: int, outputs: int, emb_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(emb_dim, 2 * outputs))
        self.block1 = ConvBlock(inputs, outputs)
        self.block2 = ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv2d(inputs, outputs, kernel_size=1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.res_conv(x) + self.block2(self.block1(x))
        return result


class LinearAttention(nn.Module):
    """``x + to_out(attention(norm(x)))`` with a separate softmax over the head's channels for queries, and over
    pixels and learned memory tokens for keys (Shen et al. 2018, "Efficient Attention"; linear in pixels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.mem_kv = nn.Parameter(torch.randn(2, HEADS, HEAD_DIM, MEMORY_TOKENS))
        self.norm = RMSNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * inner, kernel_size=1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, channels, kernel_size=1), RMSNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        heads = self.to_qkv(self.norm(x)).view(batch, 3, HEADS, HEAD_DIM, height * width)
        queries, keys, values = heads.unbind(1)
        memory_keys, memory_values = self.mem_kv[:, None].expand(-1, batch, -1, -1, -1)
        keys = torch.cat([memory_keys, keys], dim=-1).softmax(dim=-1)
        values = torch.cat([memory_values, values], dim=-1)
        context = keys @ values.transpose(-1, -2)
        mixed = context.transpose(-1, -2) @ (queries.softmax(dim=-2) * HEAD_DIM**-0.5)
        result: Tensor = x + self.to_out(mixed.reshape(batch, -1, height, width))
        return result


def _level(inputs: int, outputs: int, emb_dim: int, resample: nn.Module) -> nn.ModuleList:
    return nn.ModuleList(
        [
            ResnetBlock(inputs, outputs, emb_dim),
            ResnetBlock(inputs, outputs, emb_dim),
            LinearAttention(outputs),
            resample,
        ]
    )


class SimpleUnet(nn.Module):
    """eps(x, t) for x (B, C, H, W); same shape as x. t is accepted for the interface and ignored.

    H and W must be multiples of `size_multiple`: every pair of adjacent widths is a level, and all levels
    but the last halve the image.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        downs, emb_dim = spec.downs, 4 * spec.time_emb_dim
        outer, bottom = downs[0], downs[-1]
        pairs = list(pairwise(downs))
        self.pos_emb = time_mlp(spec.time_emb_dim, spec.time_embedding, nn.GELU())
        self.init_conv = nn.Conv2d(spec.channels, outer, kernel_size=7, padding=3)
        self.downsampling = nn.ModuleList(
            _level(i, i, emb_dim, nn.Conv2d(i, o, kernel_size=4, stride=2, padding=1)) for i, o in pairs[:-1]
        )
        self.downsampling.extend(
            _level(i, i, emb_dim, nn.Conv2d(i, o, kernel_size=3, padding=1)) for i, o in pairs[-1:]
        )
        self.resint1 = ResnetBlock(bottom, bottom, emb_dim)
        self.attention_int = LinearAttention(bottom)
        self.resint2 = ResnetBlock(bottom, bottom, emb_dim)
        self.upsampling = nn.ModuleList(
            _level(i + o, o, emb_dim, nn.ConvTranspose2d(o, i, kernel_size=4, stride=2, padding=1))
            for i, o in pairs[:0:-1]
        )
        self.upsampling.extend(
            _level(i + o, o, emb_dim, nn.Conv2d(o, i, kernel_size=3, padding=1)) for i, o in pairs[:1]
        )
        self.end_res = ResnetBlock(2 * outer, outer, emb_dim)
        self.out_conv = nn.Conv2d(outer, spec.channels, kernel_size=1)

    @staticmethod
    def size_multiple(levels: int) -> int:
        """Returns what the height and width of an image must be a multiple of."""
        return 1 << max(levels - 2, 0)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.init_conv(x)
        skips = [x]
        for level in self.downsampling:
            block1, block2, attention, resample = level.children()
            x = block1(x)
            skips.append(x)
            x = attention(block2(x))
            skips.append(x)
            x = resample(x)
        x = self.resint2(self.attention_int(self.resint1(x)))
        for level in self.upsampling:
            block1, block2, attention, resample = level.children()
            x = block1(torch.cat([x, skips.pop()], dim=1))
            x = block2(torch.cat([x, skips.pop()], dim=1))
            x = resample(attention(x))
        result: Tensor = self.out_conv(self.end_res(torch.cat([x, skips.pop()], dim=1)))
        return result
