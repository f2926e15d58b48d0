"""What was found at the location of a checkpoint, whatever its format and layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights
from ddpm_inference.job import ModelFile

Json = Mapping[str, JsonValue]

_OF_2022 = {"DDPM": "DDPMPipeline", "DDIM": "DDIMPipeline", "PNDM": "PNDMPipeline"}


@dataclass(frozen=True)
class ModelFiles:
    """The files of a checkpoint, decoded.

    Attributes:
        origin: the location, printable; with the commit, for a repository.
        weights: key -> array. Attention layers have today's names, whatever the release that wrote them.
        config: the network's config.json; None if there is none.
        scheduler: scheduler_config.json as it is stored; None if there is none.
        index: model_index.json; None if there is none.
        metadata: of a safetensors file that this program wrote.
        files: every file that was read; empty for a single file.
        revision: the commit of a repository.
        notes: what the user should know of the choice of files, one sentence each.
    """

    origin: str
    weights: Weights = field(default_factory=dict)
    config: Json | None = None
    metadata: Metadata | None = None
    scheduler: Json | None = None
    index: Json | None = None
    files: tuple[ModelFile, ...] = ()
    revision: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def pipeline_class(self) -> str | None:
        """The class that model_index.json names, by its present name; None if it names none."""
        name = None if self.index is None else self.index.get("_class_name")
        return _OF_2022.get(name, name) if isinstance(name, str) else None
