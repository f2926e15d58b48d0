"""The Unet rewritten for sampling: algebraically the same function, with all constants computed once.

In a step all rows share one timestep, so the time embedding and its projections, up to the bias of the next
convolution, are constants: one row of a table over timesteps. Evaluation-mode BatchNorm is a scale and a shift for
each channel, and folds into the preceding convolution (not into the following one, which pads with zeros). The
attention's q, k, v and its own projections are one linear map. A transposed convolution of stride 2 is a plain
convolution with four times the channels, whose pixels are then interleaved.

Images are channels_last throughout. Folding is computed in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_inference.models.unet import (
    ATTENTION_HEADS,
    AttentionBlock,
    DownBlock,
    ResBlock,
    Unet,
    UpBlock,
)

Row = tuple[Tensor, ...]


class FoldedUnet(nn.Module):
    """``eps = folded(x, row)``: x (B, C, H, W) channels_last, row one of `rows()`; eps like x.

    Args:
        network: the reference, not modified; folded as in evaluation mode.
        timesteps: those that the sampler will visit.
    """

    def __init__(self, network: Unet, timesteps: Sequence[int]) -> None:
        super().__init__()
        t = torch.tensor(timesteps, dtype=torch.int64, device=network.out_conv.weight.device)
        with torch.no_grad():
            emb = network.pos_emb(t).double()
            self.init_conv = _conv(network.init_conv)
            self.init_res = _Res(network.init_res, emb)
            self.init_conv2 = _conv(network.init_conv2)
            self.downs = nn.ModuleList(_Down(cast(DownBlock, block), emb) for block in network.downsampling)
            self.resint1 = _Res(network.resint1, emb)
            self.attention = _Attention(network.attention_int, emb)
            self.norm = _NormRelu(network.bnorm)
            self.resint2 = _Res(network.resint2, emb)
            self.ups = nn.ModuleList(_Up(cast(UpBlock, block), emb) for block in network.upsampling)
            self.norm_out = _NormRelu(network.bnorm_out)
            self.out_conv = _conv(network.out_conv)
        self.float()

    def rows(self) -> list[Row]:
        """Returns the `row` argument of `forward` for each timestep: a bias (C,) for each time-dependent block."""
        timed = [self.init_res, *self.downs, self.resint1, self.attention, self.resint2, *self.ups]
        return list(zip(*(cast(Tensor, block.bias).unbind() for block in timed), strict=True))

    def forward(self, x: Tensor, row: Row) -> Tensor:
        bias = iter(row)
        x = outermost = self.init_conv2(self.init_res(self.init_conv(x), next(bias)))
        skips = []
        for down in self.downs:
            x, skip = down(x, next(bias))
            skips.append(skip)
        bottom = x
        x = self.norm(self.attention(self.resint1(x, next(bias)), next(bias)))
        x = self.resint2(x, next(bias)).add_(bottom)
        for up, skip in zip(self.ups, [bottom, *reversed(skips)], strict=False):
            x = up(torch.cat([x, skip], dim=1), next(bias))
        result: Tensor = self.out_conv(self.norm_out(x + outermost))
        return result


class _Conv(nn.Module):
    """A convolution with its own bias, or the caller's where it depends on time."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Buffer(weight.contiguous(memory_format=torch.channels_last))
        self.bias = None if bias is None else nn.Buffer(bias)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight, self.bias if bias is None else bias, self.stride, self.padding)


class _NormRelu(nn.Module):
    """``relu(bn(x))``"""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        self.scale, self.shift = nn.Buffer(scale), nn.Buffer(shift)
        self.mean, self.variance = nn.Buffer(torch.zeros_like(scale)), nn.Buffer(torch.ones_like(scale))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, self.scale, self.shift, eps=0.0).relu_()


class _Res(nn.Module):
    """`ResBlock`: bn2 and the time projection are folded into conv1."""

    def __init__(self, block: ResBlock, emb: Tensor) -> None:
        super().__init__()
        self.norm = _NormRelu(block.bnorm1)
        self.conv1, bias = _conv_norm(block.conv1, _linear(block.lintemb, emb.relu()), block.bnorm2)
        self.bias = nn.Buffer(bias)
        self.conv2 = _conv(block.conv2)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        h = self.conv1(self.norm(x), bias).relu_()
        result: Tensor = self.conv2(h).add_(x)
        return result


class _Down(nn.Module):
    """`DownBlock`, folded like `_Res`; returns (y at half the size, y)."""

    def __init__(self, block: DownBlock, emb: Tensor) -> None:
        super().__init__()
        self.norm = _NormRelu(block.bnorm1)
        self.conv1, bias = _conv_norm(block.conv1, _linear(block.lintemb, emb).relu(), block.bnorm2)
        self.bias = nn.Buffer(bias)
        self.conv2 = _conv(block.conv2)
        self.transform = _conv(block.transform)

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv1(self.norm(x), bias)
        y: Tensor = self.conv2(h).relu_().add_(x)
        return self.transform(y), y


class _Up(nn.Module):
    """`UpBlock`, folded like `_Res`; returns y at twice the size."""

    def __init__(self, block: UpBlock, emb: Tensor) -> None:
        super().__init__()
        self.norm = _NormRelu(block.bnorm1)
        self.conv1, bias = _conv_norm(block.conv1, _linear(block.lintemb, emb).relu(), block.bnorm2)
        self.bias = nn.Buffer(bias)
        self.conv2 = _conv(block.conv2)
        self.squish_conv = _conv(block.squish_conv)
        self.transform = _transposed(block.transform)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        h = self.conv1(self.norm(x), bias)
        y = self.conv2(h).relu_().add_(self.squish_conv(x))
        return _interleave(self.transform(y))


class _Attention(nn.Module):
    """`AttentionBlock`: lintemb, bnorm, q, k, v and in_proj are one linear map, out_proj and proj another."""

    def __init__(self, block: AttentionBlock, emb: Tensor) -> None:
        super().__init__()
        inner = block.attention
        in_weights, in_biases = inner.in_proj_weight.double().chunk(3), inner.in_proj_bias.double().chunk(3)
        parts = list(zip((block.q, block.k, block.v), in_weights, in_biases, strict=True))
        weight = torch.cat([in_weight @ part.weight.double() for part, in_weight, _ in parts])
        bias = torch.cat([in_weight @ part.bias.double() + in_bias for part, in_weight, in_bias in parts])
        time = _linear(block.lintemb, emb).relu()
        scale, shift = _affine(block.bnorm) if block.norm else (torch.ones_like(time[0]), torch.zeros_like(time[0]))
        self.qkv = _Conv((weight * scale)[:, :, None, None], None)
        self.bias = nn.Buffer(F.linear(time * scale + shift, weight, bias))
        out_weight = block.proj.weight.double() @ inner.out_proj.weight.double()
        self.out = _Conv(out_weight[:, :, None, None], _linear(block.proj, inner.out_proj.bias.double()))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x, bias).permute(0, 2, 3, 1)
        heads = qkv.reshape(batch, height * width, 3, ATTENTION_HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads.unbind()).transpose(1, 2)
        result: Tensor = self.out(mixed.reshape(batch, height, width, -1).permute(0, 3, 1, 2)).add_(x)
        return result


def _conv(conv: nn.Conv2d) -> _Conv:
    bias = cast(Tensor, conv.bias)
    return _Conv(conv.weight.double(), bias.double(), conv.stride[0], int(conv.padding[0]))


def _conv_norm(conv: nn.Conv2d, time: Tensor, norm: nn.BatchNorm2d) -> tuple[_Conv, Tensor]:
    """Folds ``norm(conv(x) + time)`` into a convolution and its bias (n, C), one for each row of `time` (n, C)."""
    scale, shift = _affine(norm)
    bias = cast(Tensor, conv.bias).double()
    weight = conv.weight.double() * scale[:, None, None, None]
    return _Conv(weight, None, conv.stride[0], int(conv.padding[0])), (bias + time) * scale + shift


def _transposed(conv: nn.ConvTranspose2d) -> _Conv:
    """Rewrites a transposed convolution (kernel 4, stride 2, padding 1) as a 3x3 one with 4 times the channels.

    The channels are ordered (a, b, C), where (a, b) belongs to output pixel (2i+a, 2j+b) at (i, j). Output row 2i
    depends on input row i through tap 1 and on i-1 through tap 3; row 2i+1 on i through tap 2 and on i+1 through tap
    0. The same holds for columns.
    """
    inputs, outputs = conv.weight.shape[:2]
    weight = conv.weight.new_zeros(2, 2, outputs, inputs, 3, 3, dtype=torch.float64)
    taps = (((-1, 3), (0, 1)), ((0, 2), (1, 0)))
    for a, b in itertools.product((0, 1), repeat=2):
        for (dy, ky), (dx, kx) in itertools.product(taps[a], taps[b]):
            weight[a, b, :, :, dy + 1, dx + 1] = conv.weight[:, :, ky, kx].t()
    bias = cast(Tensor, conv.bias).double()
    return _Conv(weight.flatten(0, 2), bias.repeat(4), padding=1)


def _interleave(x: Tensor) -> Tensor:
    """Interleaves pixels: (B, (a, b, C), H, W) -> (B, C, (H, a), (W, b)), both channels_last."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, height, width, 2, channels // 2).transpose(2, 3)
    return rows.reshape(batch, 2 * height, 2 * width, channels // 4).permute(0, 3, 1, 2)


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    """Applies a linear map in float64."""
    return F.linear(x, linear.weight.double(), linear.bias.double())


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns evaluation-mode BatchNorm as (scale, shift), float64 (C,) each."""
    mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    return scale, norm.bias.double() - mean * scale
