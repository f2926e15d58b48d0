"""Which network a checkpoint holds, told from its metadata or its keys and shapes, and whether it is whole."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count, takewhile

import numpy as np
from pydantic import ValidationError

from ddpm_inference.checkpoint.layout import COUNTER, Shapes, layout, size_multiple
from ddpm_inference.checkpoint.safetensors_file import Array, Metadata, Weights
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.job import ModelRequest, ModelSpec, TimeEmbedding, explain

DEFAULT_IMG_SIZE = 28
ORIGINAL_TIME_EMBEDDING: TimeEmbedding = "row"
ATTENTION_COUNTER = f"attention_int.bnorm.{COUNTER}"
FLAGS = {
    "name": "--model_name",
    "downs": "--downs",
    "time_emb_dim": "--time_emb_dim",
    "img_size": "--img_size",
    "channels": "--channels",
    "time_embedding": "--time_embedding",
}
NAMED = 3


def resolve(weights: Weights, metadata: Metadata | None, request: ModelRequest) -> tuple[ModelSpec, list[str]]:
    """The architecture, complete, and a note for every part of it that had to be assumed.

    Raises:
        InvalidSpec: if the request contradicts what the checkpoint says.
        ModelRejected: if the weights are not those of the architecture.
    """
    shapes = {key: value.shape for key, value in weights.items()}
    if metadata is None:
        spec, notes = _inferred(shapes, weights, request)
    else:
        spec, notes = metadata.model, []
        _refuse_contradictions(request, spec.model_dump(), "metadata says")
    check(weights, spec)
    return spec, notes


def check(weights: Weights, spec: ModelSpec) -> None:
    """Holds the weights against the layout of `spec`: same keys, same shapes, right types, all finite;
    and its image size against its levels.

    Raises:
        ModelRejected: naming what differs.
    """
    expected = layout(spec)
    wrong = [
        f"{key} is {_size(weights[key].shape)} instead of {_size(shape)}"
        for key, shape in expected.items()
        if key in weights and weights[key].shape != shape
    ]
    found = [
        _listed("missing", expected.keys() - weights.keys()),
        _listed("unknown", weights.keys() - expected.keys()),
        _listed("of another shape", wrong),
    ]
    if any(found):
        raise ModelRejected(
            f"it is not a {_described(spec)}: {'; '.join(filter(None, found))}",
            hint="it must be the state dict of that network, whole and alone",
        )
    multiple = size_multiple(spec.name, len(spec.downs))
    if spec.img_size % multiple:
        raise ModelRejected(
            f"image size {spec.img_size} does not fit a {_described(spec)}, which needs a multiple of {multiple}",
            hint="give the --img_size that it was trained with",
        )
    for key, value in weights.items():
        _check_values(key, value)


def _check_values(key: str, value: Array) -> None:
    wanted = np.int64 if key.endswith(COUNTER) else np.float32
    if value.dtype != wanted:
        raise ModelRejected(f"tensor {key} holds {value.dtype} values instead of {np.dtype(wanted)}")
    if not np.isfinite(value).all():
        raise ModelRejected(
            f"tensor {key} holds {np.count_nonzero(~np.isfinite(value))} values that are NaN or infinite",
            hint="the training diverged: take an earlier checkpoint",
        )
    if key.endswith("running_var") and (value < 0).any():
        raise ModelRejected(f"tensor {key} holds negative variances, so it is damaged")


def _inferred(shapes: Shapes, weights: Weights, request: ModelRequest) -> tuple[ModelSpec, list[str]]:
    """The original's checkpoints are bare state dicts; what they cannot say is assumed to be the original's."""
    known = _read_off(shapes)
    _refuse_contradictions(request, known, "weights say")
    norm = known["name"] != "Unet" or bool(np.any(weights.get(ATTENTION_COUNTER, True)))
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
        raise ModelRejected(f"its weights are of no network known here: {explain(error)}") from error
    notes = []
    if request.time_embedding is None and spec.name == "Unet":
        notes.append("time embedding: row, the original's (--time_embedding step if it was trained with the timestep)")
    if request.img_size is None:
        notes.append(f"image size: {spec.img_size} (--img_size if it was trained with another)")
    if not norm:
        notes.append(f"attention without its BatchNorm: {ATTENTION_COUNTER} is 0, so the training never used it")
    return spec, notes


def _read_off(shapes: Shapes) -> dict[str, object]:
    """Name, widths, time_emb_dim and channels, from the shapes that hold them."""
    if any(key.startswith(("init_conv2.", "attention_int.k.")) for key in shapes):
        name, outermost, width = "Unet", "init_conv2.weight", "downsampling.{}.transform.weight"
    elif any(key.startswith(("end_res.", "attention_int.to_qkv.")) for key in shapes):
        name, outermost, width = "SimpleUnet", "init_conv.weight", "downsampling.{}.3.weight"
    else:
        raise ModelRejected(
            f"its {len(shapes)} keys are of no network known here, which are Unet and SimpleUnet: "
            f"{_listed('unknown', shapes) or 'it is empty'}"
        )

    def size(key: str, axis: int) -> int:
        if key not in shapes:
            raise ModelRejected(f"it is a {name} that is not whole: {key} is missing")
        if len(shapes[key]) <= axis:
            raise ModelRejected(f"it is a {name} that is damaged: {key} is {_size(shapes[key])}")
        return shapes[key][axis]

    levels = takewhile(lambda i: any(key.startswith(f"downsampling.{i}.") for key in shapes), count())
    return {
        "name": name,
        "downs": (size(outermost, 0), *(size(width.format(level), 0) for level in levels)),
        "time_emb_dim": size("pos_emb.1.weight", 1),
        "channels": size("init_conv.weight", 1),
    }


def _refuse_contradictions(request: ModelRequest, known: dict[str, object], says: str) -> None:
    for field, flag in FLAGS.items():
        asked = getattr(request, field)
        if asked is not None and field in known and asked != known[field]:
            raise InvalidSpec(
                f"{flag} {_flag(asked)} contradicts the checkpoint, whose {says} {_flag(known[field])}",
                hint=f"leave {flag} out, or give the checkpoint that was meant",
            )


def _flag(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _described(spec: ModelSpec) -> str:
    return f"{spec.name} with downs {_flag(spec.downs)}, time_emb_dim {spec.time_emb_dim}, channels {spec.channels}"


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def _listed(what: str, found: Collection[str]) -> str:
    """``5 unknown (a, b, c, ...)``, at most `NAMED` of them by name; empty for none."""
    if not found:
        return ""
    return f"{len(found)} {what} ({', '.join(sorted(found)[:NAMED])}{', ...' if len(found) > NAMED else ''})"
