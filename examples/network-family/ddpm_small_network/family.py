"""The family `SmallNetwork`: recognised by its keys, read from its shapes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ddpm_inference.errors import ModelRejected
from ddpm_inference.job import Cost, Execution, ModelRequest, Precision
from ddpm_inference.models.families import ModelFiles, Predictor
from ddpm_inference.network_spec import ExternalSpec, NetworkSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_SIZE = 16


class SmallNetworkFamily:
    """See `ddpm_inference.models.families.Family`."""

    name = "SmallNetwork"

    def recognises(self, files: ModelFiles) -> bool:
        """Returns whether the weights have the key that only this network has."""
        return files.config is None and "small_in.weight" in files.weights

    def read(self, files: ModelFiles, request: ModelRequest) -> NetworkSpec:
        """Reads channels and width from the shapes; the size of the images is the request's.

        Raises:
            ModelRejected: if the weights are damaged.
        """
        shape = files.weights["small_in.weight"].shape
        if len(shape) != 4:
            raise ModelRejected("its small_in.weight is no convolution's")
        size = request.img_size or DEFAULT_SIZE
        return ExternalSpec(name=self.name, channels=shape[1] - 1, size=(size, size), options={"width": int(shape[0])})

    def notes(self, files: ModelFiles, request: ModelRequest) -> list[str]:
        """Returns the size if it was assumed."""
        return [] if request.img_size else [f"image size: {DEFAULT_SIZE} (--img_size if it was trained with another)"]

    def shapes(self, spec: NetworkSpec) -> Mapping[str, tuple[int, ...]]:
        """Returns key -> shape. The network sees the timestep as one more channel."""
        channels, width = spec.image_shape[0], self._width(spec)
        return {
            "small_in.weight": (width, channels + 1, 3, 3),
            "small_in.bias": (width,),
            "small_middle.weight": (width, width, 3, 3),
            "small_middle.bias": (width,),
            "small_out.weight": (channels, width, 3, 3),
            "small_out.bias": (channels,),
        }

    def check(self, spec: NetworkSpec) -> None:
        """Accepts every size of image: the network has no levels."""

    def describe(self, spec: NetworkSpec) -> str:
        """Returns the architecture in words."""
        return f"{self.name} with width {self._width(spec)}"

    def cost(self, spec: NetworkSpec) -> Cost:
        """Returns the cost of three convolutions."""
        channels, height, width = spec.image_shape
        hidden, pixels = self._width(spec), height * width
        multiplications = pixels * 9 * hidden * (2 * channels + 1 + hidden)
        return Cost(flops=2 * multiplications, activation_bytes=4 * pixels * (3 * hidden + 8 * channels))

    def build(self, spec: NetworkSpec) -> nn.Module:
        """Builds the network with random weights."""
        from ddpm_small_network.network import SmallNetwork

        return SmallNetwork(spec.image_shape[0], self._width(spec))

    def predictor(
        self,
        network: nn.Module,
        spec: NetworkSpec,
        timesteps: Sequence[float],
        *,
        precision: Precision,
        execution: Execution,
        device: torch.device | str,
    ) -> Predictor:
        """Prepares the network for sampling."""
        from ddpm_small_network.network import predictor

        return predictor(network, precision, device)

    @staticmethod
    def _width(spec: NetworkSpec) -> int:
        width = spec.options.get("width") if isinstance(spec, ExternalSpec) else None
        if not isinstance(width, int) or not 1 <= width <= 1024:
            raise ModelRejected(f"the width of a SmallNetwork cannot be {width}")
        return width


FAMILY = SmallNetworkFamily()
