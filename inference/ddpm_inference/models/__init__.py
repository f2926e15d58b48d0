"""Networks: the families of them, and their networks as modules of torch. Importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddpm_inference.models.families import family_of
from ddpm_inference.network_spec import NetworkSpec

if TYPE_CHECKING:
    from torch import nn


def build(spec: NetworkSpec) -> nn.Module:
    """Builds the network of `spec` with random weights, in training mode, on torch's default device.

    Raises:
        InvalidSpec: if its family is not installed, or the image size does not fit the number of levels.
    """
    return family_of(spec).build(spec)


def expected_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Returns key -> shape of the network's state dict, in order of registration; allocates no weights.

    Raises:
        InvalidSpec: as `build`.
    """
    import torch

    with torch.device("meta"):
        network = build(spec)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}
