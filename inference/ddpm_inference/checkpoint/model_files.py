"""What was found at the location of a checkpoint, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights


@dataclass(frozen=True)
class ModelFiles:
    """The files of a checkpoint, decoded.

    Attributes:
        origin: the location, printable.
        weights: key -> array.
        config: the network's config.json; None if there is none.
        metadata: of a safetensors file that this program wrote.
    """

    origin: str
    weights: Weights
    config: Mapping[str, JsonValue] | None = None
    metadata: Metadata | None = None
