"""Safetensors checkpoints: rejected with ModelRejected, or loaded as the weights of a supported network.

An input that begins with a brace is only the header. Its length is put before it and the tensors, all zeros, after it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator

import atheris

from ddpm_inference.checkpoint import load
from ddpm_inference.checkpoint.safetensors_file import METADATA_KEY, Metadata
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule
from ddpm_inference.models.guide_layout import COUNTER, layout
from tests.fuzz import documents

SPEC = ModelSpec(name="Unet", downs=(2,), time_emb_dim=2, img_size=8, time_embedding="step")
METADATA = Metadata(model=SPEC, trained=TrainedSchedule(name="linear", timesteps=10))
REQUEST = ModelRequest(uri="fuzzed")
MAX_DATA_BYTES = 4 << 20


def seeds() -> Iterator[bytes]:
    one_tensor = {"init_conv.weight": {"dtype": "F32", "shape": [1, 1, 3, 3], "data_offsets": [0, 36]}}
    yield json.dumps(one_tensor).encode()
    yield json.dumps({"__metadata__": {METADATA_KEY: METADATA.model_dump_json()}, **one_tensor}).encode()
    yield struct.pack("<Q", 2) + b"{}"
    header, offset = {"__metadata__": {METADATA_KEY: METADATA.model_dump_json()}}, 0
    for key, shape in layout(SPEC).items():
        size = (8 if key.endswith(COUNTER) else 4) * _product(shape)
        dtype = "I64" if key.endswith(COUNTER) else "F32"
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset := offset + size]}
    yield json.dumps(header).encode()
    yield json.dumps({key: value for key, value in header.items() if key != "__metadata__"}).encode()


def _product(shape: tuple[int, ...]) -> int:
    return shape[0] * _product(shape[1:]) if shape else 1


def mutate(data: bytes, max_length: int, seed: int) -> bytes:
    return documents.mutate(data, max_length, seed) if data.startswith(b"{") else atheris.Mutate(data, max_length)


def fuzz_one(data: bytes) -> None:
    if data.startswith(b"{"):
        ends = [int(end) for end in re.findall(rb", ?(\d{1,9})\]\}", data)]
        data = struct.pack("<Q", len(data)) + data + bytes(min(max(ends, default=0), MAX_DATA_BYTES))
    try:
        checkpoint = load(data, REQUEST)
    except (ModelRejected, InvalidSpec):
        return
    assert {key: value.shape for key, value in checkpoint.weights.items()} == layout(checkpoint.spec)
