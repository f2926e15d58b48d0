"""Checkpoints: loads files and folders of untrusted origin, and saves safetensors with metadata."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddpm_inference.checkpoint.architecture import check, require_known, resolve
from ddpm_inference.checkpoint.formats import as_safetensors
from ddpm_inference.checkpoint.model_files import ModelFiles
from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights, as_array, decode, encode
from ddpm_inference.checkpoint.pipeline_folder import (
    Layout,
    find_layout,
    hint_by_name,
    read_configs,
    read_weights,
    refuse_by_name,
    single_weights,
)
from ddpm_inference.checkpoint.source import Source, open_source
from ddpm_inference.errors import InvalidSpec, ModelRejected, StorageFailed
from ddpm_inference.job import DEFAULT_TIMESTEPS, ModelRequest, ModelSource, TrainedDiffusion, TrainedSchedule
from ddpm_inference.network_spec import AnyNetworkSpec
from ddpm_inference.sampling.scheduler_config import read_scheduler

if TYPE_CHECKING:
    from torch import Tensor

MAX_MESSAGE_LENGTH = 1000
SCHEDULE_NOTE = (
    f"noise schedule: not in the checkpoint, so linear with {DEFAULT_TIMESTEPS} timesteps "
    "unless --schedule and --timesteps are given"
)


@dataclass(frozen=True)
class Checkpoint:
    """Weights that were verified against `spec`: keys, shapes and finite values.

    Attributes:
        spec: the architecture, complete.
        trained: the noise schedule of the training; None if the checkpoint has no metadata.
        weights: key -> float32 array (int64 for the counters of BatchNorm). numpy, so that a process that only
            passes them on needs no torch, and Ray shares them without copies.
        sha256: of the file's bytes, whatever its format; of several files see `ModelSource.sha256`.
        notes: assumptions that the user should see, one sentence each.
        diffusion: what the files of a pipeline say of its training and its sampling; None for a network of the guide.
        source: the files that it consists of, and their commit; None for a single file outside of a repository.
    """

    spec: AnyNetworkSpec
    trained: TrainedSchedule | None
    weights: Weights
    sha256: str
    notes: tuple[str, ...] = ()
    diffusion: TrainedDiffusion | None = None
    source: ModelSource | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the weights as CPU tensors, copied, for ``build(spec).load_state_dict``."""
        import torch

        return {key: torch.tensor(value) for key, value in self.weights.items()}


def load(data: bytes | Path, request: ModelRequest) -> Checkpoint:
    """Loads a checkpoint from the bytes of a safetensors file or a ``.pt`` state dict, or from a path.

    Raises:
        As `load_from`.
    """
    if isinstance(data, Path):
        return load_from(request.model_copy(update={"uri": str(data)}))
    with _located(request.uri):
        return _load(data, request)


def load_from(request: ModelRequest, *, revision: str | None = None) -> Checkpoint:
    """Loads the checkpoint at `request.uri`: a safetensors file, a ``.pt`` state dict, or the folder of a pipeline.

    No code in its files is executed, and no file is read that is not needed. Memory is bounded by a small multiple of
    the size of the weights.

    Args:
        revision: the commit to use of an ``hf://`` URI, instead of what its own revision is now.

    Raises:
        ModelNotFound: if nothing is there, or it cannot be read.
        ModelRejected: if a file is damaged or dangerous, the sha256 is not `request.sha256`, or it does not contain a
            network that is drawn.
        InvalidSpec: if `request` contradicts the checkpoint, or the URI is not valid.
    """
    source = open_source(request.uri, revision=revision)
    with _located(source.uri):
        name = ""
        if not source.is_file:
            only = single_weights(source)
            if only is None:
                return _load_pipeline(source, request)
            name = only
        refuse_by_name(name or source.uri)
        data = source.read(name)
        try:
            checkpoint = _load(data, request, source)
        except ModelRejected as error:
            raise ModelRejected(error.message, hint=error.hint or hint_by_name(name or source.uri)) from error
        note = (f"the model is the file {name}",) if name else ()
        return replace(checkpoint, notes=(*note, *checkpoint.notes))


def read_pipeline(source: Source, request: ModelRequest) -> tuple[ModelFiles, Layout, TrainedDiffusion]:
    """Reads the configurations of a pipeline's folder, and checks all that needs no weights.

    Raises:
        As `load_from`.
    """
    layout = find_layout(source)
    files = read_configs(source, layout)
    diffusion = read_scheduler(files.scheduler, files.pipeline_class)
    require_known(files, request)
    return files, layout, diffusion


def _load_pipeline(source: Source, request: ModelRequest) -> Checkpoint:
    # Before the weights are downloaded.
    _, layout, diffusion = pipeline = read_pipeline(source, request)
    files = read_weights(source, layout, pipeline[0])
    recorded = _recorded(source, request)
    _require_pinned(recorded.sha256, request)
    spec, notes = resolve(files, request)
    return Checkpoint(
        spec, None, files.weights, recorded.sha256, (*files.notes, *notes), diffusion=diffusion, source=recorded
    )


def _recorded(source: Source, request: ModelRequest) -> ModelSource:
    """Returns what job.json records of a source. Paths are left out: they decide nothing, and differ by machine."""
    files = tuple(sorted(source.used.values(), key=lambda file: file.name))
    uri = request.uri if source.revision else None
    return ModelSource(uri=uri, revision=source.revision, files=files)


@contextmanager
def _located(location: str) -> Iterator[None]:
    """Puts the location before messages that do not name it already."""
    try:
        yield
    except (ModelRejected, InvalidSpec) as error:
        message = _printable(error.message)
        if not message.startswith(location.rstrip("/")):
            message = f"{location}: {message}"
        raise type(error)(message, hint=error.hint) from error


def _printable(message: str) -> str:
    """Removes control characters and truncates: names in a hostile file must not control a terminal or fill a log."""
    return "".join(character if character.isprintable() else "?" for character in message[:MAX_MESSAGE_LENGTH])


def _load(data: bytes, request: ModelRequest, source: Source | None = None) -> Checkpoint:
    sha256 = hashlib.sha256(data).hexdigest()
    _require_pinned(sha256, request)
    weights, metadata = decode(as_safetensors(data))
    spec, notes = resolve(ModelFiles(origin=request.uri, weights=weights, metadata=metadata), request)
    trained = metadata.trained if metadata else None
    diffusion = metadata.diffusion if metadata else None
    if trained is None and diffusion is None:
        notes.append(SCHEDULE_NOTE)
    recorded = _recorded(source, request) if source and source.revision else None
    return Checkpoint(spec, trained, weights, sha256, tuple(notes), diffusion, recorded)


def _require_pinned(sha256: str, request: ModelRequest) -> None:
    if request.sha256 not in (None, sha256):
        raise ModelRejected(
            f"its sha256 is {sha256}, not the pinned {request.sha256}",
            hint="it is another one or was changed: pin the new sha256 if this is intended",
        )


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
    write_file(path, encode(weights, Metadata(model=spec, trained=trained, extra=dict(extra or {}))))


def write_file(path: Path, data: bytes) -> None:
    """Writes a file atomically; replaces an existing one. Raises StorageFailed if it cannot be written."""
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
