"""The families of the guide's networks, ``Unet`` and ``SimpleUnet``: recognised by their keys, read from their shapes.

A file of our own says its architecture in its metadata. A bare state dict does not, so what its shapes cannot say is
assumed to be as in the original code, and said. Imports no torch: the driver reads checkpoints without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, assert_never

from pydantic import ValidationError

from ddpm_inference.documents import format_validation_error
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import Cost, Execution, ModelRequest, Precision
from ddpm_inference.models.attention_norm import infer_attention_norm
from ddpm_inference.models.families import ModelFiles, Predictor, Weights, printable_shape, refuse_contradictions
from ddpm_inference.models.guide_layout import Shapes, layout, size_multiple
from ddpm_inference.network_spec import ModelName, ModelSpec, NetworkSpec, TimeEmbedding

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_IMG_SIZE = 28
ORIGINAL_TIME_EMBEDDING: TimeEmbedding = "row"
# The defaults of these networks are those of their first release, which depend on the image alone: stored identities
# hold them. These figures give the same, and are about right for the shipped network.
_FLOPS_PER_PIXEL = 100_000
_BYTES_PER_PIXEL = 4096
_KEYS: dict[ModelName, tuple[str, ...]] = {
    "Unet": ("init_conv2.", "attention_int.k."),
    "SimpleUnet": ("end_res.", "attention_int.to_qkv."),
}


@dataclass(frozen=True)
class GuideFamily:
    """One of the two networks; see `families.Family`."""

    name: ModelName

    def recognises(self, files: ModelFiles) -> bool:
        """Returns whether the weights have keys that only this network has."""
        return files.config is None and any(key.startswith(_KEYS[self.name]) for key in files.weights)

    def read(self, files: ModelFiles, request: ModelRequest) -> ModelSpec:
        """Infers the architecture of a bare state dict.

        Raises:
            InvalidSpec: if the request contradicts the weights.
            ModelRejected: if the weights belong to no such network.
        """
        return _infer(self.name, files.weights, request)[0]

    def notes(self, files: ModelFiles, request: ModelRequest) -> list[str]:
        """Returns a note on every part of the architecture that was assumed."""
        return _infer(self.name, files.weights, request)[1]

    def shapes(self, spec: NetworkSpec) -> Shapes:
        """Returns key -> shape of the state dict."""
        return layout(_guide(spec))

    def check(self, spec: NetworkSpec) -> None:
        """Checks the size of the image against the number of levels.

        Raises:
            ModelRejected: if the levels do not divide it.
        """
        spec = _guide(spec)
        multiple = size_multiple(spec.name, len(spec.downs))
        if spec.img_size % multiple:
            raise ModelRejected(
                f"image size {spec.img_size} does not fit a {self.describe(spec)}, "
                f"which needs a multiple of {multiple}",
                hint="set --img_size to the size it was trained with",
            )

    def describe(self, spec: NetworkSpec) -> str:
        """Returns the architecture in words."""
        spec = _guide(spec)
        downs = " ".join(map(str, spec.downs))
        return f"{spec.name} with downs {downs}, time_emb_dim {spec.time_emb_dim}, channels {spec.channels}"

    def cost(self, spec: NetworkSpec) -> Cost:
        """Returns the nominal cost of an image of this size, which does not depend on the widths."""
        spec = _guide(spec)
        pixels = spec.img_size**2
        return Cost(flops=_FLOPS_PER_PIXEL * pixels, activation_bytes=_BYTES_PER_PIXEL * pixels)

    def build(self, spec: NetworkSpec) -> nn.Module:
        """Builds the network with random weights, in training mode, on torch's default device."""
        from ddpm_inference.models.guide_networks import build

        return build(_guide(spec))

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
        """Prepares the network for sampling; see `models.predictor`."""
        from ddpm_inference.models.predictor import predictor

        return predictor(network, _guide(spec), timesteps, precision=precision, execution=execution, device=device)


UNET = GuideFamily("Unet")
SIMPLE_UNET = GuideFamily("SimpleUnet")


def _guide(spec: NetworkSpec) -> ModelSpec:
    if not isinstance(spec, ModelSpec):
        raise InvalidSpec(f"{spec.name} is not a network of the guide")
    return spec


def _infer(name: ModelName, weights: Weights, request: ModelRequest) -> tuple[ModelSpec, list[str]]:
    """Infers the architecture of a bare state dict. What it cannot contain is assumed to be as in the original code."""
    known = _infer_from_shapes(name, {key: value.shape for key, value in weights.items()})
    refuse_contradictions(request, known, "weights say")
    if known["name"] != "Unet" and request.attention_norm is not None:
        raise InvalidSpec(f"--attention_norm is for the Unet, and this is a {known['name']}", hint="omit it")
    norm, norm_note = request.attention_norm, None
    if norm is None:
        norm, norm_note = infer_attention_norm(weights) if known["name"] == "Unet" else (True, None)
    try:
        spec = ModelSpec.model_validate(
            {
                **known,
                "img_size": request.img_size or DEFAULT_IMG_SIZE,
                "time_embedding": request.time_embedding or ORIGINAL_TIME_EMBEDDING,
                "attention_norm": norm,
            }
        )
    except ValidationError as error:
        raise ModelRejected(f"its weights belong to no known network: {format_validation_error(error)}") from error
    notes = []
    if request.time_embedding is None and spec.name == "Unet":
        notes.append("time embedding: row, the original's (--time_embedding step if it was trained with the timestep)")
    if request.img_size is None:
        notes.append(f"image size: {spec.img_size} (--img_size if it was trained with another)")
    if norm_note is not None:
        notes.append(norm_note)
    return spec, notes


def _infer_from_shapes(name: ModelName, shapes: Shapes) -> dict[str, object]:
    """Returns name, widths, time_emb_dim and channels, from the shapes that contain them."""
    match name:
        case "Unet":
            outermost, width = "init_conv2.weight", "downsampling.{}.transform.weight"
        case "SimpleUnet":
            outermost, width = "init_conv.weight", "downsampling.{}.3.weight"
        case _:
            assert_never(name)

    def size(key: str, axis: int) -> int:
        if key not in shapes:
            raise ModelRejected(f"it is an incomplete {name}: {key} is missing")
        if len(shapes[key]) <= axis:
            raise ModelRejected(f"it is a damaged {name}: {key} is {printable_shape(shapes[key])}")
        return shapes[key][axis]

    levels = takewhile(lambda i: any(key.startswith(f"downsampling.{i}.") for key in shapes), count())
    return {
        "name": name,
        "downs": (size(outermost, 0), *(size(width.format(level), 0) for level in levels)),
        "time_emb_dim": size("pos_emb.1.weight", 1),
        "channels": size("init_conv.weight", 1),
    }
