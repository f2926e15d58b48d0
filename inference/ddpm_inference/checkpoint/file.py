"""A checkpoint as a whole: bytes of a known kind in, weights and what is known of them out, and back again."""

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
from ddpm_inference.checkpoint.safetensors_file import LENGTH_BYTES, Metadata, Weights, as_array, decode, encode
from ddpm_inference.checkpoint.torch_file import to_safetensors
from ddpm_inference.errors import InvalidSpec, ModelRejected, StorageFailed
from ddpm_inference.job import DEFAULT_TIMESTEPS, ModelRequest, ModelSpec, TrainedSchedule

if TYPE_CHECKING:
    from torch import Tensor

MESSAGE_LIMIT = 1000
ZIP = b"PK\x03\x04"
KNOWN_OTHERS = {
    b"\x80": "a bare pickle, which may carry code and is never loaded; save it again with a current torch.save",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for; run git lfs pull",
    b"<": "a page of HTML or XML; download the file itself",
    b"\x89HDF": "an HDF5 file; only PyTorch checkpoints are known",
}


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were found to be those of `spec`: right keys, right shapes, all finite.

    Attributes:
        spec: the architecture, complete.
        trained: the noise schedule of the training, None if the checkpoint does not say.
        weights: key -> float32 array (int64 for the counters of BatchNorm). numpy, so that a process that only
            hands them on needs no torch, and Ray shares them without copies.
        sha256: of the file's bytes, whatever kind of file it was.
        notes: what had to be assumed, a sentence each, for the user to see.
    """

    spec: ModelSpec
    trained: TrainedSchedule | None
    weights: Weights
    sha256: str
    notes: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Tensor]:
        """The weights as tensors on the CPU, copied, for ``build(spec).load_state_dict``."""
        import torch

        return {key: torch.tensor(value) for key, value in self.weights.items()}


def load(data: bytes | Path, request: ModelRequest) -> Checkpoint:
    """A checkpoint from the bytes of a safetensors file or a ``.pt`` state dict, or from such a file.

    Nothing that the bytes hold is executed. Memory is bounded by a small multiple of their length.

    Raises:
        ModelNotFound: if there is no such file.
        ModelRejected: if the bytes are damaged or dangerous, are not those that `request.sha256` pins, or are not
            the weights of a network known here.
        InvalidSpec: if `request` contradicts what the checkpoint says of itself.
    """
    where = request.uri
    if isinstance(data, Path):
        where = str(data)
        data = fetch(where)
    try:
        return _load(data, request)
    except (ModelRejected, InvalidSpec) as error:
        raise type(error)(f"{where}: {_printable(error.message)}", hint=error.hint) from error


def _printable(message: str) -> str:
    """Names inside a hostile file must not reach a terminal as control characters, nor fill a log."""
    return "".join(letter if letter.isprintable() else "?" for letter in message[:MESSAGE_LIMIT])


def _load(data: bytes, request: ModelRequest) -> Checkpoint:
    sha256 = hashlib.sha256(data).hexdigest()
    if request.sha256 not in (None, sha256):
        raise ModelRejected(
            f"its sha256 is {sha256}, not the pinned {request.sha256}",
            hint="it is another file, or was changed: pin the new sum if that is what you want",
        )
    weights, metadata = decode(_as_safetensors(data))
    spec, notes = resolve(weights, metadata, request)
    trained = metadata.trained if metadata else None
    if trained is None:
        notes.append(
            f"noise schedule: not said, so linear with {DEFAULT_TIMESTEPS} timesteps "
            "unless --schedule and --timesteps are given"
        )
    return Checkpoint(spec, trained, weights, sha256, tuple(notes))


def _as_safetensors(data: bytes) -> bytes:
    if not data:
        raise ModelRejected("it is empty", hint="download or copy it again")
    if data.startswith(ZIP):
        return to_safetensors(data)
    if data[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{":
        return data
    beginning = data[:64].lstrip()
    for start, what in KNOWN_OTHERS.items():
        if beginning.startswith(start):
            raise ModelRejected(f"it is {what}")
    raise ModelRejected("it is neither a safetensors file nor a .pt file by torch.save")


def save(
    path: Path,
    state_dict: Mapping[str, Tensor],
    spec: ModelSpec,
    trained: TrainedSchedule | None,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors checkpoint with metadata, whole or not at all, over whatever is there.

    Args:
        state_dict: of the network that `spec` describes; stored as float32.
        trained: the noise schedule of the training, and the variance recommended for sampling.
        extra: anything worth keeping with the weights, such as the recipe; not looked at again.

    Raises:
        ModelRejected: if the weights are not those of `spec`, or not finite.
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
        request: the architecture, where `source` does not say it.
        trained: the noise schedule, where `source` does not say it.

    Returns:
        what was written; its sha256 is the new file's.

    Raises:
        InvalidSpec: if `target` exists and may not be overwritten, or a contradiction as in `load`.
        ModelNotFound, ModelRejected: as `load`; nothing is written then.
        StorageFailed: if it cannot be written.
    """
    if target.exists() and not overwrite:
        raise InvalidSpec(f"{target} is there already", hint="give another name, or --overwrite")
    checkpoint = load(source, request)
    said = checkpoint.trained
    if said and trained and (said.name, said.timesteps) != (trained.name, trained.timesteps):
        raise InvalidSpec(
            f"{source} says it was trained with the schedule {said.name} of {said.timesteps} timesteps, "
            f"not {trained.name} of {trained.timesteps}"
        )
    trained = said or trained
    data = encode(checkpoint.weights, Metadata(model=checkpoint.spec, trained=trained))
    _write(target, data)
    return replace(checkpoint, trained=trained, sha256=hashlib.sha256(data).hexdigest())


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
            f"{path} could not be written: {error.strerror}", hint="give a place that exists, with room and rights"
        ) from error
