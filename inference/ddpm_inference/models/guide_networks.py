"""The guide's networks as modules of torch, by name."""

from __future__ import annotations

from torch import nn

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import ModelName, ModelSpec
from ddpm_inference.models.simple_unet import SimpleUnet
from ddpm_inference.models.unet import Unet

NETWORKS: dict[ModelName, type[Unet] | type[SimpleUnet]] = {"Unet": Unet, "SimpleUnet": SimpleUnet}


def build(spec: ModelSpec) -> nn.Module:
    """Builds the network of `spec` with random weights, in training mode, on torch's default device.

    Call it as ``eps = network(x, t)``: x float32 (B, C, H, W), t int64 (B,), eps like x.

    Raises:
        InvalidSpec: if the image size does not fit the number of levels.
    """
    network = NETWORKS[spec.name]
    multiple = network.size_multiple(len(spec.downs))
    if spec.img_size % multiple:
        raise InvalidSpec(
            f"img_size {spec.img_size} does not fit downs {' '.join(map(str, spec.downs))}: "
            f"{spec.name} with {len(spec.downs)} levels needs a multiple of {multiple}",
            hint="use the image size and the widths that the checkpoint was trained with",
        )
    return network(spec)
