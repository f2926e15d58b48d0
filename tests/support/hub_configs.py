"""Configurations of pipelines on public model hubs: what becomes of each, and each at a size that a test can draw.

tests/fixtures/hub_configs.jsonl has one on each line: model_index.json, the UNet's config.json and
scheduler_config.json, each null if it was not seen. Names of private persons are replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ddpm_inference.errors import DdpmError
from ddpm_inference.job import ModelRequest, SamplerRequest, SamplerSpec, TrainedDiffusion, UNet2DSpec, resolve_sampler
from ddpm_inference.models.families import recognised
from ddpm_inference.sampling.scheduler_config import read_scheduler

FIXTURE = Path(__file__).parents[1] / "fixtures" / "hub_configs.jsonl"
MAX_WIDTH = 32
MAX_SIDE = 32
GROUPS = 4


@dataclass(frozen=True)
class Files:
    """The files of a pipeline, of which a test has only the configuration; see `models.families.ModelFiles`."""

    config: Mapping[str, Any] | None
    weights: Mapping[str, Any] = field(default_factory=dict)
    metadata: None = None


@dataclass(frozen=True)
class Entry:
    """One line of the fixture.

    Attributes:
        line: its number, which tells two entries of one name apart.
    """

    line: int
    name: str
    model_index: Mapping[str, Any] | None
    unet: Mapping[str, Any] | None
    scheduler: Mapping[str, Any] | None

    @property
    def id(self) -> str:
        """For the names of tests."""
        return f"{self.line}-{self.name.replace('/', '-')}"

    @property
    def pipeline(self) -> str | None:
        """The class in model_index.json."""
        name = (self.model_index or {}).get("_class_name")
        return name if isinstance(name, str) else None

    def read(self) -> tuple[UNet2DSpec, TrainedDiffusion]:
        """Reads network and scheduler.

        Raises:
            DdpmError: if one of them is refused.
        """
        diffusion = read_scheduler(self.scheduler, self.pipeline)
        files, request = Files(self.unet), ModelRequest(uri=self.name)
        spec = recognised(files, request).read(files, request)
        assert isinstance(spec, UNet2DSpec)
        return spec, diffusion

    def notes(self) -> list[str]:
        """Returns what was assumed of an entry that is not refused."""
        files, request = Files(self.unet), ModelRequest(uri=self.name)
        return [*recognised(files, request).notes(files, request), *self.read()[1].notes]


@cache
def entries() -> tuple[Entry, ...]:
    """Returns all entries, in the order of the fixture."""
    lines = FIXTURE.read_text().splitlines()
    return tuple(Entry(line=number, **json.loads(line)) for number, line in enumerate(lines, start=1))


@cache
def drawn() -> tuple[Entry, ...]:
    """Returns the entries whose network was seen, and that are not refused."""
    return tuple(entry for entry in entries() if entry.unet is not None and refusal(entry) is None)


def refusal(entry: Entry) -> str | None:
    """Returns why an entry is refused; None if it is not."""
    try:
        entry.read()
    except DdpmError as error:
        return error.message
    return None


def reduced(spec: UNet2DSpec) -> UNet2DSpec:
    """Returns the network with the same levels and the same kind of blocks, at widths and images of at most 32."""
    largest = max(spec.block_out_channels)
    widths = tuple(max(GROUPS, width * MAX_WIDTH // largest // GROUPS * GROUPS) for width in spec.block_out_channels)
    groups = {"norm_num_groups": GROUPS}
    if spec.attn_norm_num_groups is not None:
        groups["attn_norm_num_groups"] = GROUPS
    head = spec.attention_head_dim
    multiple, side = spec.size_multiple, max(spec.sample_size)
    size = tuple(max(multiple, length * MAX_SIDE // side // multiple * multiple) for length in spec.sample_size)
    return UNet2DSpec.model_validate(
        {
            **spec.model_dump(),
            **groups,
            "block_out_channels": widths,
            "attention_head_dim": None if head is None else min(head, *widths),
            "sample_size": size,
        }
    )


def sampler_of(spec: UNet2DSpec, diffusion: TrainedDiffusion, **fields: Any) -> SamplerSpec:  # noqa: ANN401
    """Returns the sampler of a pipeline, with some fields of the request set."""
    return resolve_sampler(SamplerRequest(**fields), None, diffusion, learned_variance=spec.learned_variance)


def table() -> str:
    """Returns what becomes of every entry, as a table of Markdown."""
    rows = ["| model | network | scheduler | |", "| --- | --- | --- | --- |"]
    for entry in entries():
        scheduler = str((entry.scheduler or {}).get("_class_name", "not seen"))
        why = refusal(entry)
        if entry.unet is None:
            network = "config not seen"
            verdict = (
                f"not counted; {why}" if entry.scheduler is not None and why and "scheduler" in why else "not counted"
            )
        else:
            network = str(entry.unet.get("_class_name", "no class name"))
            verdict = f"refused: {why}" if why else _drawn(entry)
        rows.append(f"| {entry.name} | {network} | {scheduler} | {verdict} |")
    counted = [entry for entry in entries() if entry.unet is not None]
    rows.append("")
    rows.append(f"{len(drawn())} of {len(counted)} networks whose config.json was seen are drawn.")
    return "\n".join(rows)


def _drawn(entry: Entry) -> str:
    spec, diffusion = entry.read()
    sampler = sampler_of(spec, diffusion)
    shape = "x".join(map(str, (spec.sample_size[0], spec.sample_size[1], spec.in_channels)))
    notes = []
    if entry.scheduler is None:
        notes.append("the scheduler is filled in")
    if any("class" in note and "2022" in note for note in entry.notes()):
        notes.append("keys of 2022")
    elif any(note.startswith("config.json lacks") for note in entry.notes()):
        notes.append("missing keys are filled in")
    return f"drawn: {shape}, {sampler.name}, {sampler.steps} steps" + "".join(f"; {note}" for note in notes)
