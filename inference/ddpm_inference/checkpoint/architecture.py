"""Architecture of a checkpoint: read from its metadata, or by the family that recognises its files, then verified."""

from __future__ import annotations

import numpy as np

from ddpm_inference.checkpoint.safetensors_file import Array, Weights
from ddpm_inference.errors import ModelRejected
from ddpm_inference.job import ModelRequest
from ddpm_inference.models.families import (
    ModelFiles,
    family_of,
    list_some,
    printable_shape,
    recognised,
    refuse_contradictions,
)
from ddpm_inference.network_spec import AnyNetworkSpec, NetworkSpec

COUNTER = "num_batches_tracked"


def resolve(files: ModelFiles, request: ModelRequest) -> tuple[AnyNetworkSpec, list[str]]:
    """Returns the complete architecture, and a note for the user on every part of it that was assumed.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint.
        ModelRejected: if the weights do not belong to the architecture.
    """
    if files.metadata is None:
        family = recognised(files, request)
        spec, notes = family.read(files, request), family.notes(files, request)
    else:
        spec, notes = files.metadata.model, []
        refuse_contradictions(request, spec.model_dump(), "metadata says")
    check(files.weights, spec)
    return spec, notes


def require_known(files: ModelFiles, request: ModelRequest) -> None:
    """Checks a configuration before the weights are there.

    Raises:
        InvalidSpec, ModelRejected: as `resolve`.
    """
    family = recognised(files, request)
    family.check(family.read(files, request))


def check(weights: Weights, spec: NetworkSpec) -> None:
    """Checks the weights against the layout of `spec` (keys, shapes, dtypes, finite values), and its image size against
    its number of levels.

    Raises:
        ModelRejected: naming the differences.
    """
    family = family_of(spec)
    expected = family.shapes(spec)
    mismatched = [
        f"{key} is {printable_shape(weights[key].shape)} instead of {printable_shape(shape)}"
        for key, shape in expected.items()
        if key in weights and weights[key].shape != shape
    ]
    differences = [
        list_some("missing", expected.keys() - weights.keys()),
        list_some("unknown", weights.keys() - expected.keys()),
        list_some("of another shape", mismatched),
    ]
    if any(differences):
        raise ModelRejected(
            f"it is not a {family.describe(spec)}: {'; '.join(filter(None, differences))}",
            hint="it must be the complete state dict of that network, and nothing else",
        )
    family.check(spec)
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
