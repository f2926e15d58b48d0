"""Layout and cost of a ``UNet2DModel``: key -> shape of its state dict, and what one evaluation costs.

As `ddpm_inference.models.unet2d_layout`, which a test compares with diffusers' class; a test here compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ddpm_operator.client.pipeline.unet2d_config import UNet2DSpec
from ddpm_operator.planning.sizing import Cost

BYTES = 4  # of an activation in fp32


@dataclass
class _Walk:
    """Walks through the network in the order of its evaluation, for one sample.

    Attributes:
        shapes: key -> shape, of the layers so far.
        flops: of these layers, two for a multiplication with its addition.
        kept: values that a later layer reads, such as skips.
        peak: largest number of values that were in memory at once.
    """

    spec: UNet2DSpec
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    flops: int = 0
    kept: int = 0
    peak: int = 0

    def linear(self, key: str, inputs: int, outputs: int, rows: int = 1) -> None:
        self.shapes |= {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}
        self.flops += 2 * rows * inputs * outputs

    def conv(self, key: str, inputs: int, outputs: int, kernel: int, pixels: int) -> None:
        """`pixels`: of the output."""
        self.shapes |= {f"{key}.weight": (outputs, inputs, kernel, kernel), f"{key}.bias": (outputs,)}
        self.flops += 2 * pixels * inputs * outputs * kernel**2

    def norm(self, key: str, channels: int) -> None:
        self.shapes |= {f"{key}.weight": (channels,), f"{key}.bias": (channels,)}

    def live(self, values: int) -> None:
        """Notes that `values` are in memory besides those that are kept."""
        self.peak = max(self.peak, self.kept + values)

    def resnet(self, key: str, inputs: int, outputs: int, pixels: int, *, resampled: int | None = None) -> None:
        """`ResnetBlock2D`; `resampled`: pixels after it, if it halves or doubles the image."""
        after = resampled or pixels
        projected = outputs if self.spec.resnet_time_scale_shift == "default" else 2 * outputs
        self.norm(f"{key}.norm1", inputs)
        self.conv(f"{key}.conv1", inputs, outputs, 3, after)
        self.linear(f"{key}.time_emb_proj", self.embedding, projected)
        self.norm(f"{key}.norm2", outputs)
        self.conv(f"{key}.conv2", outputs, outputs, 3, after)
        if inputs != outputs:
            self.conv(f"{key}.conv_shortcut", inputs, outputs, 1, after)
        # Its input, the normalised input, and the result of conv1; then the input and two results.
        larger = max(pixels, after)
        self.live(max(2 * inputs * larger + outputs * after, inputs * larger + 3 * outputs * after))

    def attention(self, key: str, channels: int, pixels: int, *, norm: bool) -> None:
        """`Attention` over all pixels, with a residual connection."""
        width = self.spec.attention_head_dim or channels
        inner = channels // width * width
        if norm:
            self.norm(f"{key}.group_norm", channels)
        for part in ("to_q", "to_k", "to_v"):
            self.linear(f"{key}.{part}", channels, inner, pixels)
        self.linear(f"{key}.to_out.0", inner, channels, pixels)
        self.flops += 4 * pixels**2 * inner
        self.live((2 * channels + 4 * inner) * pixels)

    @property
    def embedding(self) -> int:
        return self.spec.time_embedding_dim or 4 * self.spec.block_out_channels[0]


def shapes_and_cost(spec: UNet2DSpec) -> tuple[dict[str, tuple[int, ...]], Cost]:
    """Returns key -> shape of the state dict, and the cost of one evaluation of one sample."""
    walk = _Walk(spec)
    widths = spec.block_out_channels
    height, width = spec.sample_size
    sizes = [max(1, height >> level) * max(1, width >> level) for level in range(len(widths))]
    _embeddings(walk)
    walk.conv("conv_in", spec.in_channels, widths[0], 3, sizes[0])
    skips = [(widths[0], sizes[0])]
    walk.kept = widths[0] * sizes[0]
    _down(walk, sizes, skips)
    _middle(walk, widths[-1], sizes[-1])
    _up(walk, sizes, skips)
    walk.norm("conv_norm_out", widths[0])
    walk.conv("conv_out", widths[0], spec.out_channels, 3, sizes[0])
    walk.live((3 * widths[0] + spec.out_channels) * sizes[0])
    # The chain holds x, the noise, x_0 and the prediction besides.
    chain = (6 * spec.in_channels + spec.out_channels) * sizes[0]
    return walk.shapes, Cost(flops=walk.flops, activation_bytes=BYTES * (walk.peak + chain))


def _embeddings(walk: _Walk) -> None:
    spec, first = walk.spec, walk.spec.block_out_channels[0]
    if spec.time_embedding_type == "learned":
        walk.shapes["time_proj.weight"] = (spec.num_train_timesteps or 0, first)
    parts = ["time_embedding"]
    if spec.class_embed_type == "timestep":
        parts.append("class_embedding")
    elif spec.num_class_embeds is not None:
        walk.shapes["class_embedding.weight"] = (spec.num_class_embeds, walk.embedding)
    for part in parts:
        walk.linear(f"{part}.linear_1", first, walk.embedding)
        walk.linear(f"{part}.linear_2", walk.embedding, walk.embedding)


def _down(walk: _Walk, sizes: list[int], skips: list[tuple[int, int]]) -> None:
    spec, widths = walk.spec, walk.spec.block_out_channels
    inputs = widths[0]
    for level, (block, outputs) in enumerate(zip(spec.down_block_types, widths, strict=True)):
        key, pixels = f"down_blocks.{level}", sizes[level]
        for layer in range(spec.layers_per_block):
            walk.resnet(f"{key}.resnets.{layer}", outputs if layer else inputs, outputs, pixels)
            if block == "AttnDownBlock2D":
                walk.attention(f"{key}.attentions.{layer}", outputs, pixels, norm=True)
            skips.append((outputs, pixels))
            walk.kept += outputs * pixels
        if level + 1 < len(widths):
            after = sizes[level + 1]
            if block == "ResnetDownsampleBlock2D" or (block == "AttnDownBlock2D" and spec.downsample_type == "resnet"):
                walk.resnet(f"{key}.downsamplers.0", outputs, outputs, pixels, resampled=after)
            else:
                walk.conv(f"{key}.downsamplers.0.conv", outputs, outputs, 3, after)
                walk.live(outputs * (2 * pixels + after))
            skips.append((outputs, after))
            walk.kept += outputs * after
        inputs = outputs


def _middle(walk: _Walk, channels: int, pixels: int) -> None:
    spec = walk.spec
    if spec.mid_block_type is None:
        return
    walk.resnet("mid_block.resnets.0", channels, channels, pixels)
    if spec.add_attention:
        norm = spec.attn_norm_num_groups is not None or spec.resnet_time_scale_shift == "default"
        walk.attention("mid_block.attentions.0", channels, pixels, norm=norm)
    walk.resnet("mid_block.resnets.1", channels, channels, pixels)


def _up(walk: _Walk, sizes: list[int], skips: list[tuple[int, int]]) -> None:
    spec, widths = walk.spec, walk.spec.block_out_channels[::-1]
    inputs = widths[0]
    for level, (block, outputs) in enumerate(zip(spec.up_block_types, widths, strict=True)):
        key, pixels = f"up_blocks.{level}", sizes[len(sizes) - 1 - level]
        for layer in range(spec.layers_per_block + 1):
            channels, skip_pixels = skips.pop()
            walk.resnet(f"{key}.resnets.{layer}", (outputs if layer else inputs) + channels, outputs, pixels)
            walk.kept -= channels * skip_pixels
            if block == "AttnUpBlock2D":
                walk.attention(f"{key}.attentions.{layer}", outputs, pixels, norm=True)
        if level + 1 < len(widths):
            after = sizes[len(sizes) - 2 - level]
            if block == "ResnetUpsampleBlock2D" or (block == "AttnUpBlock2D" and spec.upsample_type == "resnet"):
                walk.resnet(f"{key}.upsamplers.0", outputs, outputs, pixels, resampled=after)
            else:
                walk.conv(f"{key}.upsamplers.0.conv", outputs, outputs, 3, after)
                walk.live(outputs * (pixels + 2 * after))
        inputs = outputs
