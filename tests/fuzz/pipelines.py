"""Folders of pipelines: refused with a DdpmError, or loaded as a network whose weights fit its configuration.

An input is the number of a configuration, and its content. The other files are those of a whole pipeline.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from ddpm_inference.checkpoint import load_from
from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.job import ModelRequest
from ddpm_inference.models.families import family_of
from tests.fuzz import documents
from tests.support.pipelines import nested, write

NAMES = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "unet/unet_config.json")
FILES = nested()


def seeds() -> Iterator[bytes]:
    for number, name in enumerate(NAMES[:3]):
        yield str(number).encode() + FILES[name]


def mutate(data: bytes, max_length: int, seed: int) -> bytes:
    number = data[:1] if data[:1].isdigit() else b"0"
    return (number if seed % 8 else str(seed % 4).encode()) + documents.mutate(data[1:], max_length - 1, seed)


def fuzz_one(data: bytes) -> None:
    number = int(data[:1]) % len(NAMES) if data[:1].isdigit() else 0
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), {**FILES, NAMES[number]: data[1:]})
        try:
            checkpoint = load_from(ModelRequest(uri=folder))
        except (InvalidSpec, ModelNotFound, ModelRejected):
            return
    shapes = family_of(checkpoint.spec).shapes(checkpoint.spec)
    assert {key: value.shape for key, value in checkpoint.weights.items()} == dict(shapes)
    assert checkpoint.diffusion is not None
