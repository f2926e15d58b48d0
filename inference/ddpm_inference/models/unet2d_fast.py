"""A ``UNet2DModel`` rewritten for sampling: algebraically the same function, with all that is constant computed once.

In a step all rows share one timestep, so the time embedding and its projections are a row of a table over timesteps;
without classes it is added to the bias of the convolution before it. The query, key and value of an attention are one
linear map. An upsampling to twice the size and the 3x3 convolution after it are four 2x2 convolutions, one for each
pixel of a 2x2 block, with 4/9 of the multiplications. Images are channels_last throughout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm_inference.network_spec import UNet2DSpec

Row = tuple[Tensor, ...]
_CHUNK = 256  # timesteps embedded at once


class FastUNet2D(nn.Module):
    """``prediction = fast(x, row)``: x (B, C, H, W) channels_last, `row` of `rows` or `labelled_row`.

    Args:
        network: diffusers' UNet2DModel in evaluation mode, not modified.
        spec: its configuration.
        timesteps: those that the sampler will visit.
    """

    def __init__(self, network: nn.Module, spec: UNet2DSpec, timesteps: Sequence[float]) -> None:
        super().__init__()
        net: Any = network
        self.spec = spec
        self.resnets: list[_Resnet] = []
        self.act = _ACTIVATIONS[spec.act_fn]
        self.act_ = _IN_PLACE.get(spec.act_fn, self.act)
        self.conv_in = _Conv(net.conv_in)
        self.downs = nn.ModuleList(self._down(block) for block in net.down_blocks)
        self.middle = nn.ModuleList() if net.mid_block is None else self._middle(net.mid_block)
        self.ups = nn.ModuleList(self._up(block) for block in net.up_blocks)
        self.norm_out = _Norm(net.conv_norm_out)
        self.conv_out = _Conv(net.conv_out)
        self.labelled = spec.num_classes is not None
        times = torch.tensor(timesteps, dtype=torch.float64)
        if all(float(t).is_integer() for t in timesteps):
            times = times.to(torch.int64)
        device = net.conv_in.weight.device
        with torch.no_grad():
            embedded = torch.cat([self._embedded(net, part.to(device)) for part in times.split(_CHUNK)])
            if self.labelled:
                self.embedded = nn.Buffer(embedded)
                self.classes = nn.Buffer(_class_table(net, spec, device))
            else:
                for resnet in self.resnets:
                    resnet.tabulate(embedded)

    @staticmethod
    def _embedded(net: Any, times: Tensor) -> Tensor:  # noqa: ANN401 - diffusers is not typed
        result: Tensor = net.time_embedding(net.time_proj(times).to(torch.float32))
        return result

    def rows(self) -> list[Row]:
        """Returns the `row` of each timestep, for a network without classes."""
        return list(zip(*(resnet.table.unbind() for resnet in self.resnets), strict=True))

    def labelled_row(self, index: int, labels: Tensor) -> Row:
        """Returns the `row` of the timestep with this index, for one label for each sample."""
        embedded = self.act(self.embedded[index] + self.classes[labels])
        return tuple(F.linear(embedded, resnet.time_weight, resnet.time_bias) for resnet in self.resnets)

    def forward(self, x: Tensor, row: Row) -> Tensor:
        time = iter(row)
        if self.spec.center_input_sample:
            x = 2 * x - 1.0
        x = self.conv_in(x)
        skips = [x]
        for down in self.downs:
            x = cast(_Down, down)(x, time, skips)
        for part in self.middle:
            x = part(x, time) if isinstance(part, _Resnet) else part(x)
        for up in self.ups:
            x = cast(_Up, up)(x, time, skips)
        # This activation is silu whatever `act_fn` says.
        result: Tensor = self.conv_out(F.silu(self.norm_out(x), inplace=True))
        return result

    def _resnet(self, block: nn.Module) -> _Resnet:
        made = _Resnet(block, self.act, self.act_, labelled=self.spec.num_classes is not None)
        self.resnets.append(made)
        return made

    def _down(self, block: nn.Module) -> _Down:
        source: Any = block
        layers = [self._resnet(resnet) for resnet in source.resnets]
        attentions = [_Attention(attention) for attention in getattr(source, "attentions", [])]
        sampler = None
        if source.downsamplers is not None:
            inner = source.downsamplers[0]
            sampler = _Downsample(inner) if hasattr(inner, "conv") else self._resnet(inner)
        return _Down(layers, attentions, sampler)

    def _middle(self, block: nn.Module) -> nn.ModuleList:
        source: Any = block
        parts: list[nn.Module] = [self._resnet(source.resnets[0])]
        for attention, resnet in zip(source.attentions, source.resnets[1:], strict=True):
            parts.extend([] if attention is None else [_Attention(attention)])
            parts.append(self._resnet(resnet))
        return nn.ModuleList(parts)

    def _up(self, block: nn.Module) -> _Up:
        source: Any = block
        layers = [self._resnet(resnet) for resnet in source.resnets]
        attentions = [_Attention(attention) for attention in getattr(source, "attentions", [])]
        sampler = None
        if source.upsamplers is not None:
            inner = source.upsamplers[0]
            sampler = _Upsample(inner.conv) if hasattr(inner, "conv") else self._resnet(inner)
        return _Up(layers, attentions, sampler)


_ACTIVATIONS = {
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "relu": F.relu,
}
_IN_PLACE = {"silu": partial(F.silu, inplace=True), "swish": partial(F.silu, inplace=True)}


def _class_table(net: Any, spec: UNet2DSpec, device: torch.device) -> Tensor:  # noqa: ANN401
    """Returns the embedding of every class, (classes, width)."""
    labels = torch.arange(spec.num_classes or 0, device=device)
    if spec.class_embed_type == "timestep":
        labels = net.time_proj(labels).to(torch.float32)
    result: Tensor = net.class_embedding(labels)
    return result


class _Conv(nn.Module):
    """A convolution with its own bias, or the caller's where it depends on time."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Buffer(conv.weight.detach().clone().contiguous(memory_format=torch.channels_last))
        self.bias = nn.Buffer(cast(Tensor, conv.bias).detach().clone())
        self.stride = conv.stride[0]
        self.padding = int(conv.padding[0])

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight, self.bias if bias is None else bias, self.stride, self.padding)


class _Norm(nn.Module):
    """A group norm."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(norm.weight.detach().clone()), nn.Buffer(norm.bias.detach().clone())
        self.groups, self.eps = norm.num_groups, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class _Resnet(nn.Module):
    """diffusers' `ResnetBlock2D`.

    Attributes:
        table: (timesteps, outputs), the bias of conv1 with the time; or twice as wide, a scale and a shift.
    """

    table: Tensor

    def __init__(self, block: nn.Module, act: Any, act_: Any, *, labelled: bool) -> None:  # noqa: ANN401
        super().__init__()
        source: Any = block
        self.act, self.act_ = act, act_  # the latter in place, where torch has it
        self.norm1, self.norm2 = _Norm(source.norm1), _Norm(source.norm2)
        self.conv1, self.conv2 = _Conv(source.conv1), _Conv(source.conv2)
        self.shortcut = None if source.conv_shortcut is None else _Conv(source.conv_shortcut)
        self.scale_shift = source.time_embedding_norm == "scale_shift"
        self.labelled = labelled
        self.up, self.down = bool(source.up), bool(source.down)
        self.factor = float(source.output_scale_factor)
        self.time_weight = nn.Buffer(source.time_emb_proj.weight.detach().clone())
        bias = source.time_emb_proj.bias.detach()
        # The bias of conv1 is added together with the time, unless the norm comes between the two.
        self.time_bias = nn.Buffer(bias.clone() if self.scale_shift else bias + source.conv1.bias.detach())

    def tabulate(self, embedded: Tensor) -> None:
        """Computes the table for the embedded timesteps (timesteps, width)."""
        self.table = nn.Buffer(F.linear(self.act(embedded), self.time_weight, self.time_bias))
        del self.time_weight, self.time_bias

    def forward(self, x: Tensor, time: Iterator[Tensor]) -> Tensor:
        h = self.act_(self.norm1(x))
        if self.up:
            x, h = (F.interpolate(each, scale_factor=2.0, mode="nearest") for each in (x, h))
        elif self.down:
            x, h = (F.avg_pool2d(each, 2, 2) for each in (x, h))
        row = next(time)
        if self.scale_shift:
            shape = (len(row), -1, 1, 1) if self.labelled else (1, -1, 1, 1)
            scale, shift = row.view(shape).chunk(2, dim=1)
            h = self.norm2(self.conv1(h)) * (1 + scale) + shift
        elif self.labelled:
            # A bias for each sample.
            h = self.norm2(F.conv2d(h, self.conv1.weight, None, 1, 1).add_(row[:, :, None, None]))
        else:
            h = self.norm2(self.conv1(h, row))
        h = self.conv2(self.act_(h))
        if self.shortcut is not None:
            x = self.shortcut(x)
        h = h.add_(x)
        return h if self.factor == 1.0 else h.div_(self.factor)


class _Attention(nn.Module):
    """diffusers' `Attention` over all pixels, with its norm and residual connection."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        source: Any = attention
        self.norm = None if source.group_norm is None else _Norm(source.group_norm)
        parts = (source.to_q, source.to_k, source.to_v)
        self.weight = nn.Buffer(torch.cat([part.weight.detach() for part in parts]))
        self.bias = nn.Buffer(torch.cat([part.bias.detach() for part in parts]))
        self.out_weight = nn.Buffer(source.to_out[0].weight.detach().clone())
        self.out_bias = nn.Buffer(source.to_out[0].bias.detach().clone())
        self.heads = int(source.heads)
        self.factor = float(source.rescale_output_factor)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        h = x if self.norm is None else self.norm(x)
        pixels = h.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = F.linear(pixels, self.weight, self.bias).view(batch, height * width, 3, self.heads, -1)
        mixed = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind()).transpose(1, 2)
        out = F.linear(mixed.reshape(batch, height * width, -1), self.out_weight, self.out_bias)
        result = out.view(batch, height, width, channels).permute(0, 3, 1, 2).add_(x)
        return result if self.factor == 1.0 else result.div_(self.factor)


class _Downsample(nn.Module):
    """A convolution of stride 2; google's networks pad right and below only."""

    def __init__(self, downsample: nn.Module) -> None:
        super().__init__()
        source: Any = downsample
        self.conv = _Conv(source.conv)
        self.pads = source.padding == 0

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.pads else x)
        return result


class _Upsample(nn.Module):
    """Twice the size by repeating pixels, then a 3x3 convolution, as four 2x2 convolutions.

    Of output pixel (2i+a, 2j+b) the three taps of the kernel in a row see only two input rows: i-1 and i if a is 0,
    with the weights w0 and w1 + w2; i and i+1 if a is 1, with w0 + w1 and w2. The same holds for columns.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach().double()
        for a, b in itertools.product((0, 1), repeat=2):
            folded = _fold(_fold(weight, a, 2), b, 3).float()
            self.register_buffer(f"weight{a}{b}", folded.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Buffer(cast(Tensor, conv.bias).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        padded = F.pad(x, (1, 1, 1, 1))
        weights = {(a, b): cast(Tensor, getattr(self, f"weight{a}{b}")) for a, b in itertools.product((0, 1), repeat=2)}
        channels = len(self.bias)
        result = x.new_empty(batch, height, 2, width, 2, channels)
        for (a, b), weight in weights.items():
            part = padded[:, :, a : a + height + 1, b : b + width + 1]
            result[:, :, a, :, b] = F.conv2d(part, weight, self.bias).permute(0, 2, 3, 1)
        return result.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _fold(weight: Tensor, side: int, dim: int) -> Tensor:
    """Returns the two taps that a 3-tap kernel has for one side of doubled pixels."""
    w0, w1, w2 = weight.unbind(dim)
    return torch.stack([w0, w1 + w2] if side == 0 else [w0 + w1, w2], dim=dim)


class _Down(nn.Module):
    """A down block; appends its skips."""

    def __init__(self, layers: Sequence[nn.Module], attentions: Sequence[nn.Module], sampler: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.attentions = nn.ModuleList(layers), nn.ModuleList(attentions)
        self.sampler = sampler

    def forward(self, x: Tensor, time: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(x, time)
            if len(self.attentions):
                x = self.attentions[index](x)
            skips.append(x)
        if self.sampler is not None:
            x = self.sampler(x, time) if isinstance(self.sampler, _Resnet) else self.sampler(x)
            skips.append(x)
        return x


class _Up(nn.Module):
    """An up block; takes its skips, the last first."""

    def __init__(self, layers: Sequence[nn.Module], attentions: Sequence[nn.Module], sampler: nn.Module | None) -> None:
        super().__init__()
        self.layers, self.attentions = nn.ModuleList(layers), nn.ModuleList(attentions)
        self.sampler = sampler

    def forward(self, x: Tensor, time: Iterator[Tensor], skips: list[Tensor]) -> Tensor:
        for index, layer in enumerate(self.layers):
            x = layer(torch.cat([x, skips.pop()], dim=1), time)
            if len(self.attentions):
                x = self.attentions[index](x)
        if self.sampler is not None:
            x = self.sampler(x, time) if isinstance(self.sampler, _Resnet) else self.sampler(x)
        return x
