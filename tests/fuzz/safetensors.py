"""Safetensors checkpoints: ModelRejected, or the weights of a network that is known here.

An input that begins with a brace is a header alone; its length and its tensors, all zero, are put around it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

import atheris

from ddpm_inference.checkpoint import load
from ddpm_inference.checkpoint.layout import COUNTER, layout
from ddpm_inference.checkpoint.safetensors_file import METADATA_KEY, Metadata
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule
from tests.fuzz import documents

SPEC = ModelSpec(name="Unet", downs=(2,), time_emb_dim=2, img_size=8, time_embedding="step")
METADATA = Metadata(model=SPEC, trained=TrainedSchedule(name="linear", timesteps=10))
REQUEST = ModelRequest(uri="fuzzed")
MOST_ZEROS = 4 << 20


def seeds() -> Iterator[bytes]:
    few = {"init_conv.weight": {"dtype": "F32", "shape": [1, 1, 3, 3], "data_offsets": [0, 36]}}
    yield json.dumps(few).encode()
    yield json.dumps({"__metadata__": {METADATA_KEY: METADATA.model_dump_json()}, **few}).encode()
    yield struct.pack("<Q", 2) + b"{}"
    header, end = {"__metadata__": {METADATA_KEY: METADATA.model_dump_json()}}, 0
    for key, shape in layout(SPEC).items():
        size = (8 if key.endswith(COUNTER) else 4) * _product(shape)
        dtype = "I64" if key.endswith(COUNTER) else "F32"
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end := end + size]}
    yield json.dumps(header).encode()
    yield json.dumps({key: value for key, value in header.items() if key != "__metadata__"}).encode()


def _product(shape: tuple[int, ...]) -> int:
    return shape[0] * _product(shape[1:]) if shape else 1


def mutate(data: bytes, most: int, seed: int) -> bytes:
    return documents.mutate(data, most, seed) if data.startswith(b"{") else atheris.Mutate(data, most)


def one(data: bytes) -> None:
    if data.startswith(b"{"):
        ends = [int(end) for end in re.findall(rb", ?(\d{1,9})\]\}", data)]
        data = struct.pack("<Q", len(data)) + data + bytes(min(max(ends, default=0), MOST_ZEROS))
    try:
        checkpoint = load(data, REQUEST)
    except (ModelRejected, InvalidSpec):
        return
    assert {key: value.shape for key, value in checkpoint.weights.items()} == layout(checkpoint.spec)
