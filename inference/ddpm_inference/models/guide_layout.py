"""Layout of the state dicts of the guide's networks: key -> shape, the documented format of a checkpoint.

It is written out here, so that a checkpoint can be verified without torch and without building the network that it
claims to be. A test compares it with the networks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import assert_never

from ddpm_inference.network_spec import ModelName, ModelSpec

Shapes = dict[str, tuple[int, ...]]

ATTENTION_DIM = 128
MEMORY_KV = (2, 4, 32, 4)
COUNTER = "num_batches_tracked"


def layout(spec: ModelSpec) -> Shapes:
    """Returns key -> shape of the state dict of a network. Keys that end in `COUNTER` are int64, all others floating
    point."""
    match spec.name:
        case "Unet":
            return _unet(spec)
        case "SimpleUnet":
            return _simple_unet(spec)
        case _:
            assert_never(spec.name)


def size_multiple(name: ModelName, levels: int) -> int:
    """Returns what the height and width of an image must be a multiple of. Every level halves the image, except the
    first, and in a SimpleUnet the last."""
    match name:
        case "Unet":
            halvings = levels - 1
        case "SimpleUnet":
            halvings = levels - 2
        case _:
            assert_never(name)
    return 1 << max(halvings, 0)


def _linear(key: str, inputs: int, outputs: int) -> Shapes:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


def _conv(key: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return {f"{key}.weight": (outputs, inputs, kernel, kernel), f"{key}.bias": (outputs,)}


def _transposed_conv(key: str, inputs: int, outputs: int) -> Shapes:
    return {f"{key}.weight": (inputs, outputs, 4, 4), f"{key}.bias": (outputs,)}


def _batch_norm(key: str, channels: int) -> Shapes:
    vectors = {f"{key}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{key}.{COUNTER}": ()}


def _time_mlp(dim: int) -> Shapes:
    return _linear("pos_emb.1", dim, 4 * dim) | _linear("pos_emb.3", 4 * dim, 4 * dim)


def _unet(spec: ModelSpec) -> Shapes:
    downs, emb = spec.downs, 4 * spec.time_emb_dim
    outer, bottom = downs[0], downs[-1]
    shapes = (
        _time_mlp(spec.time_emb_dim)
        | _conv("init_conv", spec.channels, outer // 2, 3)
        | _unet_block("init_res", outer // 2, outer // 2, emb)
        | _conv("init_conv2", outer // 2, outer, 3)
        | _unet_block("resint1", bottom, bottom, emb)
        | _batch_norm("bnorm", bottom)
        | _unet_attention("attention_int", bottom, emb)
        | _unet_block("resint2", bottom, bottom, emb)
        | _batch_norm("bnorm_out", outer)
        | _conv("out_conv", outer, spec.channels, 1)
    )
    for level, (inputs, outputs) in enumerate(pairwise(downs)):
        key = f"downsampling.{level}"
        shapes |= _unet_block(key, inputs, inputs, emb) | _conv(f"{key}.transform", inputs, outputs, 4)
    for level, (inputs, outputs) in enumerate(pairwise(downs[::-1])):
        key = f"upsampling.{level}"
        shapes |= _unet_block(key, 2 * inputs, inputs, emb) | _conv(f"{key}.squish_conv", 2 * inputs, inputs, 3)
        shapes |= _transposed_conv(f"{key}.transform", inputs, outputs)
    return shapes


def _unet_block(key: str, inputs: int, outputs: int, emb: int) -> Shapes:
    return (
        _linear(f"{key}.lintemb", emb, outputs)
        | _batch_norm(f"{key}.bnorm1", inputs)
        | _conv(f"{key}.conv1", inputs, outputs, 3)
        | _batch_norm(f"{key}.bnorm2", outputs)
        | _conv(f"{key}.conv2", outputs, outputs, 3)
    )


def _unet_attention(key: str, channels: int, emb: int) -> Shapes:
    shapes = _linear(f"{key}.lintemb", emb, channels) | _batch_norm(f"{key}.bnorm", channels)
    for part in ("k", "q", "v"):
        shapes |= _linear(f"{key}.{part}", channels, ATTENTION_DIM)
    return (
        shapes
        | {f"{key}.attention.in_proj_weight": (3 * ATTENTION_DIM, ATTENTION_DIM)}
        | {f"{key}.attention.in_proj_bias": (3 * ATTENTION_DIM,)}
        | _linear(f"{key}.attention.out_proj", ATTENTION_DIM, ATTENTION_DIM)
        | _linear(f"{key}.proj", ATTENTION_DIM, channels)
    )


def _simple_unet(spec: ModelSpec) -> Shapes:
    downs, emb = spec.downs, 4 * spec.time_emb_dim
    outer, bottom = downs[0], downs[-1]
    shapes = (
        _time_mlp(spec.time_emb_dim)
        | _conv("init_conv", spec.channels, outer, 7)
        | _resnet_block("resint1", bottom, bottom, emb)
        | _linear_attention("attention_int", bottom)
        | _resnet_block("resint2", bottom, bottom, emb)
        | _resnet_block("end_res", 2 * outer, outer, emb)
        | _conv("out_conv", outer, spec.channels, 1)
    )
    last = len(downs) - 2
    for level, (inputs, outputs) in enumerate(pairwise(downs)):
        key = f"downsampling.{level}"
        shapes |= _simple_level(key, inputs, inputs, emb)
        shapes |= _conv(f"{key}.3", inputs, outputs, 3 if level == last else 4)
    for level, (inputs, outputs) in enumerate(pairwise(downs[::-1])):
        key, resample = f"upsampling.{level}", f"upsampling.{level}.3"
        shapes |= _simple_level(key, inputs + outputs, inputs, emb)
        shapes |= _conv(resample, inputs, outputs, 3) if level == last else _transposed_conv(resample, inputs, outputs)
    return shapes


def _simple_level(key: str, inputs: int, outputs: int, emb: int) -> Shapes:
    return (
        _resnet_block(f"{key}.0", inputs, outputs, emb)
        | _resnet_block(f"{key}.1", inputs, outputs, emb)
        | _linear_attention(f"{key}.2", outputs)
    )


def _resnet_block(key: str, inputs: int, outputs: int, emb: int) -> Shapes:
    shapes = _linear(f"{key}.mlp.1", emb, 2 * outputs)
    for block, width in (("block1", inputs), ("block2", outputs)):
        shapes |= _conv(f"{key}.{block}.proj", width, outputs, 3) | _rms_norm(f"{key}.{block}.norm", outputs)
    return shapes if inputs == outputs else shapes | _conv(f"{key}.res_conv", inputs, outputs, 1)


def _linear_attention(key: str, channels: int) -> Shapes:
    return (
        {f"{key}.mem_kv": MEMORY_KV, f"{key}.to_qkv.weight": (3 * ATTENTION_DIM, channels, 1, 1)}
        | _rms_norm(f"{key}.norm", channels)
        | _conv(f"{key}.to_out.0", ATTENTION_DIM, channels, 1)
        | _rms_norm(f"{key}.to_out.1", channels)
    )


def _rms_norm(key: str, channels: int) -> Shapes:
    return {f"{key}.g": (1, channels, 1, 1)}
