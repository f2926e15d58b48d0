"""Encodes and decodes safetensors files: weights and metadata, without torch, in memory bounded by the file's size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from ddpm_inference.errors import ModelRejected
from ddpm_inference.job import CompactModel, TrainedDiffusion, TrainedSchedule, format_validation_error
from ddpm_inference.network_spec import AnyNetworkSpec

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32 | np.int64]
Weights = dict[str, Array]
"""Key -> float32 array, or int64 for BatchNorm's counters."""

METADATA_KEY = "ddpm_ray"
MAX_HEADER_BYTES = 1 << 20
LENGTH_BYTES = 8
MAX_DIMENSIONS = 4
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


class Metadata(CompactModel):
    """Metadata of a checkpoint: the JSON value of `METADATA_KEY` in the header of a safetensors file.

    A single key, because safetensors orders several at random, and equal checkpoints must be equal bytes.

    Attributes:
        trained: the noise schedule of the training; absent if unknown.
        normalisation: the range of the pixels the network was trained on.
        extra: further metadata of the writer; never read here.
        diffusion: of a pipeline that was converted: what its files said of training and sampling.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"diffusion"})

    version: Literal[1] = 1
    model: AnyNetworkSpec
    trained: TrainedSchedule | None = None
    normalisation: tuple[Literal[-1], Literal[1]] = (-1, 1)
    extra: dict[str, str] = Field(default_factory=dict)
    diffusion: TrainedDiffusion | None = None


def as_array(value: Tensor) -> Array:
    """Returns a tensor of any floating dtype as float32, and integers unchanged."""
    value = value.detach().cpu()
    array: Array = (value.float() if value.is_floating_point() else value).numpy()
    return array


def encode(weights: Mapping[str, Array], metadata: Metadata | None) -> bytes:
    """Returns the bytes of a safetensors file; equal for equal arguments."""
    entries = None if metadata is None else {METADATA_KEY: metadata.model_dump_json()}
    return safetensors.numpy.save({key: np.asarray(value, order="C") for key, value in weights.items()}, entries)


def decode(data: bytes) -> tuple[Weights, Metadata | None]:
    """Decodes weights as float32 (counters as int64), and the metadata; None if the file has no `METADATA_KEY`.

    Raises:
        ModelRejected: if the file is damaged, or contains tensors that no known network has.
    """
    header = int.from_bytes(data[:LENGTH_BYTES], "little")
    if header > MAX_HEADER_BYTES:
        raise ModelRejected(
            f"its safetensors header claims {header:,} bytes of at most {MAX_HEADER_BYTES:,}, so it is damaged"
        )
    try:
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise ModelRejected(
            f"it is not a complete safetensors file: {error}", hint="download or copy it again"
        ) from error
    metadata = _metadata(data[LENGTH_BYTES : LENGTH_BYTES + header])
    return {key: _array(key, **tensor) for key, tensor in tensors}, metadata


def _metadata(header: bytes) -> Metadata | None:
    entries = json.loads(header).get("__metadata__") or {}  # null counts as absent
    text = entries.get(METADATA_KEY)
    if text is None:
        return None
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        raise ModelRejected(
            f"its metadata is not valid: {format_validation_error(error)}",
            hint="it may have been written by a newer version of this program",
        ) from error


def _array(key: str, dtype: str, shape: list[int], data: bytearray) -> Array:
    if dtype not in DTYPES:
        raise ModelRejected(f"tensor {key} holds values of type {dtype}; supported are {', '.join(DTYPES)}")
    if 0 in shape or len(shape) > MAX_DIMENSIONS:
        raise ModelRejected(f"tensor {key} has a shape that no known network has: {shape}")
    array = np.frombuffer(data, DTYPES[dtype]).reshape(shape)
    if dtype == "I64":
        return array
    if dtype == "BF16":
        return (array.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):  # overflow becomes infinity, which `check` rejects
        return array.astype("<f4", copy=False)
