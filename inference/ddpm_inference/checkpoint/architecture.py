"""Architecture of a checkpoint: read from its metadata, or inferred from its keys and shapes, and then verified."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count, takewhile

import numpy as np
from pydantic import ValidationError

from ddpm_inference.checkpoint.attention_norm import infer_attention_norm
from ddpm_inference.checkpoint.layout import COUNTER, Shapes, layout, size_multiple
from ddpm_inference.checkpoint.safetensors_file import Array, Metadata, Weights
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec, TimeEmbedding, format_validation_error

DEFAULT_IMG_SIZE = 28
ORIGINAL_TIME_EMBEDDING: TimeEmbedding = "row"
FLAGS = {
    "name": "--model_name",
    "downs": "--downs",
    "time_emb_dim": "--time_emb_dim",
    "img_size": "--img_size",
    "channels": "model.channels",  # a field of the job document only
    "time_embedding": "--time_embedding",
    "attention_norm": "--attention_norm",
}
MAX_LISTED = 3


def resolve(weights: Weights, metadata: Metadata | None, request: ModelRequest) -> tuple[ModelSpec, list[str]]:
    """Returns the complete architecture, and a note for the user on every part of it that was assumed.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint.
        ModelRejected: if the weights do not belong to the architecture.
    """
    shapes = {key: value.shape for key, value in weights.items()}
    if metadata is None:
        spec, notes = _infer(shapes, weights, request)
    else:
        spec, notes = metadata.model, []
        _refuse_contradictions(request, spec.model_dump(), "metadata says")
    check(weights, spec)
    return spec, notes


def check(weights: Weights, spec: ModelSpec) -> None:
    """Checks the weights against the layout of `spec` (keys, shapes, dtypes, finite values), and its image size against
    its number of levels.

    Raises:
        ModelRejected: naming the differences.
    """
    expected = layout(spec)
    mismatched = [
        f"{key} is {_format_shape(weights[key].shape)} instead of {_format_shape(shape)}"
        for key, shape in expected.items()
        if key in weights and weights[key].shape != shape
    ]
    differences = [
        _list_some("missing", expected.keys() - weights.keys()),
        _list_some("unknown", weights.keys() - expected.keys()),
        _list_some("of another shape", mismatched),
    ]
    if any(differences):
        raise ModelRejected(
            f"it is not a {_describe(spec)}: {'; '.join(filter(None, differences))}",
            hint="it must be the complete state dict of that network, and nothing else",
        )
    multiple = size_multiple(spec.name, len(spec.downs))
    if spec.img_size % multiple:
        raise ModelRejected(
            f"image size {spec.img_size} does not fit a {_describe(spec)}, which needs a multiple of {multiple}",
            hint="set --img_size to the size it was trained with",
        )
    for key, value in weights.items():
        _check_values(key, value)


def _check_values(key: str, value: Array) -> None:
    expected = np.int64 if key.endswith(COUNTER) else np.float32
    if value.dtype != expected:
        raise ModelRejected(f"tensor {key} holds {value.dtype} values instead of {np.dtype(expected)}")
    if not np.isfinite(value).all():
        raise ModelRejected(
            f"tensor {key} holds {np.count_nonzero(~np.isfinite(value))} values that are NaN or infinite",
            hint="the training diverged: use an earlier checkpoint",
        )
    if key.endswith("running_var") and (value < 0).any():
        raise ModelRejected(f"tensor {key} holds negative variances, so the file is damaged")


def _infer(shapes: Shapes, weights: Weights, request: ModelRequest) -> tuple[ModelSpec, list[str]]:
    """Infers the architecture of a bare state dict. What it cannot contain is assumed to be as in the original code."""
    known = _infer_from_shapes(shapes)
    _refuse_contradictions(request, known, "weights say")
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


def _infer_from_shapes(shapes: Shapes) -> dict[str, object]:
    """Returns name, widths, time_emb_dim and channels, from the shapes that contain them."""
    if any(key.startswith(("init_conv2.", "attention_int.k.")) for key in shapes):
        name, outermost, width = "Unet", "init_conv2.weight", "downsampling.{}.transform.weight"
    elif any(key.startswith(("end_res.", "attention_int.to_qkv.")) for key in shapes):
        name, outermost, width = "SimpleUnet", "init_conv.weight", "downsampling.{}.3.weight"
    else:
        raise ModelRejected(
            f"its {len(shapes)} keys belong to neither a Unet nor a SimpleUnet: "
            f"{_list_some('unknown', shapes) or 'it is empty'}"
        )

    def size(key: str, axis: int) -> int:
        if key not in shapes:
            raise ModelRejected(f"it is an incomplete {name}: {key} is missing")
        if len(shapes[key]) <= axis:
            raise ModelRejected(f"it is a damaged {name}: {key} is {_format_shape(shapes[key])}")
        return shapes[key][axis]

    levels = takewhile(lambda i: any(key.startswith(f"downsampling.{i}.") for key in shapes), count())
    return {
        "name": name,
        "downs": (size(outermost, 0), *(size(width.format(level), 0) for level in levels)),
        "time_emb_dim": size("pos_emb.1.weight", 1),
        "channels": size("init_conv.weight", 1),
    }


def _refuse_contradictions(request: ModelRequest, known: dict[str, object], source: str) -> None:
    for field, flag in FLAGS.items():
        requested = getattr(request, field)
        if requested is not None and field in known and requested != known[field]:
            raise InvalidSpec(
                f"{flag} {_format_flag(requested)} contradicts the checkpoint, "
                f"whose {source} {_format_flag(known[field])}",
                hint=f"omit {flag}, or use another checkpoint",
            )


def _format_flag(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _describe(spec: ModelSpec) -> str:
    return (
        f"{spec.name} with downs {_format_flag(spec.downs)}, time_emb_dim {spec.time_emb_dim}, channels {spec.channels}"
    )


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _list_some(what: str, keys: Collection[str]) -> str:
    """Returns ``5 unknown (a, b, c, ...)`` with at most `MAX_LISTED` keys, or "" for none."""
    if not keys:
        return ""
    return f"{len(keys)} {what} ({', '.join(sorted(keys)[:MAX_LISTED])}{', ...' if len(keys) > MAX_LISTED else ''})"
