"""Weights and metadata to and from the bytes of a safetensors file; no torch, and nothing that is not bounded by
the length of the bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from ddpm_inference.errors import ModelRejected
from ddpm_inference.job import ModelSpec, StrictModel, TrainedSchedule, explain

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32 | np.int64]
Weights = dict[str, Array]
"""Key -> float32 array, or int64 for what a network counts."""

METADATA_KEY = "ddpm_ray"
HEADER_LIMIT = 1 << 20
LENGTH_BYTES = 8
MOST_AXES = 4
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


class Metadata(StrictModel):
    """What the weights are: the JSON value of `METADATA_KEY` in the header of a safetensors file.

    One key, because safetensors orders several at random, and equal checkpoints shall be equal bytes.

    Attributes:
        trained: the noise schedule of the training; absent where nobody knows it.
        normalisation: the range of the pixels the network was trained on.
        extra: whatever else the writer wants to say; not looked at.
    """

    version: Literal[1] = 1
    model: ModelSpec
    trained: TrainedSchedule | None = None
    normalisation: tuple[Literal[-1], Literal[1]] = (-1, 1)
    extra: dict[str, str] = Field(default_factory=dict)


def as_array(value: Tensor) -> Array:
    """A tensor of any floating dtype as float32; integers as they are."""
    value = value.detach().cpu()
    array: Array = (value.float() if value.is_floating_point() else value).numpy()
    return array


def encode(weights: Mapping[str, Array], metadata: Metadata | None) -> bytes:
    """The bytes of a safetensors file; equal for equal arguments."""
    entries = None if metadata is None else {METADATA_KEY: metadata.model_dump_json()}
    return safetensors.numpy.save({key: np.asarray(value, order="C") for key, value in weights.items()}, entries)


def decode(data: bytes) -> tuple[Weights, Metadata | None]:
    """Weights as float32 (counters as int64) and metadata, None where the file has none of ours.

    Raises:
        ModelRejected: if the bytes are no whole safetensors file, or hold what no network of ours has.
    """
    header = int.from_bytes(data[:LENGTH_BYTES], "little")
    if header > HEADER_LIMIT:
        raise ModelRejected(
            f"its safetensors header claims {header:,} bytes of at most {HEADER_LIMIT:,}, so it is damaged"
        )
    try:
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ModelRejected(f"it is no whole safetensors file: {error}", hint="download or copy it again") from error
    metadata = _metadata(data[LENGTH_BYTES : LENGTH_BYTES + header])
    return {key: _array(key, **tensor) for key, tensor in tensors}, metadata


def _metadata(header: bytes) -> Metadata | None:
    entries = json.loads(header).get("__metadata__") or {}  # null is as good as none
    text = entries.get(METADATA_KEY)
    if text is None:
        return None
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        raise ModelRejected(
            f"its metadata is not valid: {explain(error)}", hint="it may be of a newer version of this program"
        ) from error


def _array(key: str, dtype: str, shape: list[int], data: bytearray) -> Array:
    if dtype not in DTYPES:
        raise ModelRejected(f"tensor {key} holds values of type {dtype}; known are {', '.join(DTYPES)}")
    if 0 in shape or len(shape) > MOST_AXES:
        raise ModelRejected(f"tensor {key} has a shape that no network has: {shape}")
    array = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    if dtype == "I64":
        return array
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as that
        return array.astype("<f4", copy=False)
