"""Checkpoint files: loads safetensors and ``.pt`` files of untrusted origin, and saves safetensors with metadata."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_inference.checkpoint.architecture import check, resolve
from ddpm_inference.checkpoint.location import fetch
from ddpm_inference.checkpoint.model_files import ModelFiles
from ddpm_inference.checkpoint.safetensors_file import LENGTH_BYTES, Metadata, Weights, as_array, decode, encode
from ddpm_inference.checkpoint.torch_file import to_safetensors
from ddpm_inference.errors import InvalidSpec, ModelRejected, StorageFailed
from ddpm_inference.job import DEFAULT_TIMESTEPS, ModelRequest, TrainedDiffusion, TrainedSchedule
from ddpm_inference.network_spec import AnyNetworkSpec

if TYPE_CHECKING:
    from torch import Tensor

MAX_MESSAGE_LENGTH = 1000
SCHEDULE_NOTE = (
    f"noise schedule: not in the checkpoint, so linear with {DEFAULT_TIMESTEPS} timesteps "
    "unless --schedule and --timesteps are given"
)
ZIP_SIGNATURE = b"PK\x03\x04"
FOREIGN_FORMATS = {
    b"\x80": "a bare pickle, which may carry code and is never loaded; save it again with a current torch.save",
    b"version https://git-lfs": "a Git LFS pointer instead of the file; run git lfs pull",
    b"<": "an HTML or XML page; download the file itself",
    b"\x89HDF": "an HDF5 file; only PyTorch checkpoints are supported",
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were verified against `spec`: keys, shapes and finite values.

    Attributes:
        spec: the architecture, complete.
        trained: the noise schedule of the training; None if the checkpoint has no metadata.
        weights: key -> float32 array (int64 for the counters of BatchNorm). numpy, so that a process that only
            passes them on needs no torch, and Ray shares them without copies.
        sha256: of the file's bytes, whatever its format.
        notes: assumptions that the user should see, one sentence each.
        diffusion: what the files of a pipeline say of its training and its sampling; None for a network of the guide.
    """

    spec: AnyNetworkSpec
    trained: TrainedSchedule | None
    weights: Weights
    sha256: str
    notes: tuple[str, ...] = ()
    diffusion: TrainedDiffusion | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the weights as CPU tensors, copied, for ``build(spec).load_state_dict``."""
        import torch

        return {key: torch.tensor(value) for key, value in self.weights.items()}


def load(data: bytes | Path, request: ModelRequest) -> Checkpoint:
    """Loads a checkpoint from a safetensors file or a ``.pt`` state dict, given as bytes or as a path.

    No code in the file is executed. Memory is bounded by a small multiple of its size.

    Raises:
        ModelNotFound: if there is no such file.
        ModelRejected: if the file is damaged or dangerous, does not match `request.sha256`, or does not contain the
            weights of a known network.
        InvalidSpec: if `request` contradicts the checkpoint.
    """
    location = request.uri
    if isinstance(data, Path):
        location = str(data)
        data = fetch(location)
    try:
        return _load(data, request)
    except (ModelRejected, InvalidSpec) as error:
        raise type(error)(f"{location}: {_printable(error.message)}", hint=error.hint) from error


def _printable(message: str) -> str:
    """Removes control characters and truncates: names in a hostile file must not control a terminal or fill a log."""
    return "".join(character if character.isprintable() else "?" for character in message[:MAX_MESSAGE_LENGTH])


def _load(data: bytes, request: ModelRequest) -> Checkpoint:
    sha256 = hashlib.sha256(data).hexdigest()
    if request.sha256 not in (None, sha256):
        raise ModelRejected(
            f"its sha256 is {sha256}, not the pinned {request.sha256}",
            hint="the file is another one or was changed: pin the new sha256 if this is intended",
        )
    weights, metadata = decode(_as_safetensors(data))
    spec, notes = resolve(ModelFiles(origin=request.uri, weights=weights, metadata=metadata), request)
    trained = metadata.trained if metadata else None
    diffusion = metadata.diffusion if metadata else None
    if trained is None and diffusion is None:
        notes.append(SCHEDULE_NOTE)
    return Checkpoint(spec, trained, weights, sha256, tuple(notes), diffusion)


def _as_safetensors(data: bytes) -> bytes:
    if not data:
        raise ModelRejected("it is empty", hint="download or copy it again")
    if data.startswith(ZIP_SIGNATURE):
        return to_safetensors(data)
    if data[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        return data
    head = data[:64].lstrip()
    for signature, description in FOREIGN_FORMATS.items():
        if head.startswith(signature):
            raise ModelRejected(f"it is {description}")
    raise ModelRejected("it is neither a safetensors file nor a .pt file from torch.save")


def save(
    path: Path,
    state_dict: Mapping[str, Tensor],
    spec: AnyNetworkSpec,
    trained: TrainedSchedule | None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors checkpoint with metadata, atomically; replaces an existing file.

    Args:
        state_dict: of the network that `spec` describes; stored as float32.
        trained: the noise schedule of the training, and the variance recommended for sampling.
        extra: further metadata, such as the recipe; never read here.

    Raises:
        ModelRejected: if the weights do not belong to `spec`, or are not finite.
        StorageFailed: if it cannot be written.
    """
    weights = {key: as_array(value) for key, value in state_dict.items()}
    check(weights, spec)
    _write(path, encode(weights, Metadata(model=spec, trained=trained, extra=dict(extra or {}))))


def convert(
    source: Path,
    target: Path,
    request: ModelRequest,
    trained: TrainedSchedule | None = None,
    *,
    overwrite: bool = False,
) -> Checkpoint:
    """Rewrites a checkpoint, such as a ``.pt`` state dict, as safetensors with metadata.

    Args:
        request: the architecture, where `source` does not contain it.
        trained: the noise schedule, where `source` does not contain it.

    Returns:
        the written checkpoint; its sha256 is the new file's.

    Raises:
        InvalidSpec: if `target` exists and may not be overwritten, or a contradiction as in `load`.
        ModelNotFound, ModelRejected: as in `load`; nothing is written.
        StorageFailed: if it cannot be written.
    """
    if target.exists() and not overwrite:
        raise InvalidSpec(f"{target} already exists", hint="choose another name, or pass --overwrite")
    checkpoint = load(source, request)
    recorded = checkpoint.trained
    if recorded and trained and (recorded.name, recorded.timesteps) != (trained.name, trained.timesteps):
        raise InvalidSpec(
            f"{source} was trained with the schedule {recorded.name} of {recorded.timesteps} timesteps, "
            f"not {trained.name} of {trained.timesteps}"
        )
    trained = recorded or trained
    data = encode(checkpoint.weights, Metadata(model=checkpoint.spec, trained=trained, diffusion=checkpoint.diffusion))
    _write(target, data)
    notes = tuple(note for note in checkpoint.notes if trained is None or note != SCHEDULE_NOTE)
    return replace(checkpoint, trained=trained, sha256=hashlib.sha256(data).hexdigest(), notes=notes)


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(
            f"{path} could not be written: {error.strerror}",
            hint="choose an existing folder that is writable and has space left",
        ) from error
