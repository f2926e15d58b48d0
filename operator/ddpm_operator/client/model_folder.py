"""Checks a local pipeline folder before it is uploaded, and chooses the files to upload. Nothing in it is executed."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.spec import Footprint
from ddpm_operator.client.checkpoint_file import (
    MAX_CHECKPOINT_BYTES,
    CheckpointFile,
    StoredFile,
    Tensor,
    checkpoint_file,
    detect_format,
)
from ddpm_operator.client.errors import PipelineRejected, RequestRejected
from ddpm_operator.client.pipeline.layout import Layout, find_layout, no_weights, single_weights, today
from ddpm_operator.client.pipeline.unet2d_config import UNet2DSpec, is_unet2d, read_unet2d
from ddpm_operator.client.pipeline.unet2d_layout import BYTES, shapes_and_cost
from ddpm_operator.client.pipeline.verdict import check_config, check_index, check_scheduler

# The driver's own limits.
MAX_JSON_BYTES = 4 << 20
MAX_SHARDS = 256
MAX_ENTRIES = 20_000
MAX_DEPTH = 4
MAX_LISTED = 3

STORED_AS = "pipeline"
"""The folder on the claim."""


@dataclass(frozen=True)
class ModelFolder:
    """A local folder that looks like a pipeline that can be drawn.

    Attributes:
        files: those that the driver reads, with names below the folder, sorted by name.
        footprint: what its network takes; None for a network of another package's family.
        notes: about the choice of files, one sentence each.
    """

    path: Path
    files: tuple[StoredFile, ...]
    footprint: Footprint | None
    notes: tuple[str, ...] = ()

    @property
    def stored_as(self) -> str:
        """Its path on the claim."""
        return STORED_AS

    @property
    def stored(self) -> tuple[StoredFile, ...]:
        """The files to upload."""
        return tuple(file._replace(name=f"{STORED_AS}/{file.name}") for file in self.files)

    @property
    def bytes(self) -> int:
        """The length of all files."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """sha256, in hex, over the lines ``name sha256`` of the files, as `ddpm_inference.job.ModelSource.sha256`."""
        return hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in self.files).encode()).hexdigest()


LocalModel = CheckpointFile | ModelFolder


def local_model(path: Path, img_size: int | None = None, sampler: str | None = None) -> LocalModel:
    """Checks a local checkpoint, a file or a folder, and hashes it.

    Args:
        img_size: height and width of an image, for a pipeline whose configuration does not say.
        sampler: that the user chose, for a pipeline whose scheduler has none.

    Raises:
        RequestRejected: if it cannot be read, is incomplete, or is not drawn as far as its configurations tell.
    """
    if not path.is_dir():
        return checkpoint_file(path)
    try:
        names = _list(path)
    except OSError as error:
        raise RequestRejected(f"{path}: {error.strerror or error}", "check --model_path") from error
    only = single_weights(names)
    if only is not None:
        return checkpoint_file(path / only)
    with _located(path):
        return _Reader(path, names).read(img_size, sampler)


def _list(folder: Path) -> frozenset[str]:
    """Returns the paths of the files below a folder. Links to folders are not followed; hidden folders are left out."""
    found: set[str] = set()
    folders = [("", 0)]
    while folders:
        prefix, depth = folders.pop()
        with os.scandir(folder / prefix) as children:
            for child in children:
                if child.is_dir(follow_symlinks=False):
                    if not child.name.startswith(".") and depth < MAX_DEPTH:
                        folders.append((f"{prefix}{child.name}/", depth + 1))
                elif not child.is_dir():
                    found.add(f"{prefix}{child.name}")
                if len(found) > MAX_ENTRIES:
                    raise RequestRejected(
                        f"{folder} holds more than {MAX_ENTRIES:,} files", "give the folder of the pipeline itself"
                    )
    return frozenset(found)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    """Puts the folder before messages of what is in it, and makes names of a hostile pipeline printable."""
    try:
        yield
    except PipelineRejected as error:
        message = "".join(it if it.isprintable() else "?" for it in error.message[:1000])
        raise RequestRejected(f"{path}: {message}", error.hint) from error


class _Reader:
    """Reads the files of one folder, and remembers which."""

    def __init__(self, folder: Path, names: frozenset[str]) -> None:
        self._folder, self._names = folder, names
        self._used: dict[str, StoredFile] = {}

    def read(self, img_size: int | None, sampler: str | None) -> ModelFolder:
        layout = find_layout(self._names)
        index = self._json(layout.index) if layout.index else None
        if index is not None:
            beside = {it.removeprefix(layout.root) for it in self._names if it.startswith(layout.root)}
            check_index(index, beside)
        config = self._json(layout.config)
        check_config(config, layout.config)
        if layout.weights is None:
            raise no_weights(layout, self._names)
        if layout.scheduler:
            check_scheduler(self._json(layout.scheduler), (index or {}).get("_class_name"), sampler)
        spec = self._network(config, img_size)
        tensors = self._weights(layout, layout.weights)
        footprint = None
        if spec is not None:
            shapes, cost = shapes_and_cost(spec)
            if tensors is not None:
                _check_shapes({today(key): tensor.shape for key, tensor in tensors.items()}, shapes)
            footprint = Footprint(
                height=spec.sample_size[0],
                width=spec.sample_size[1],
                channels=spec.in_channels,
                flops=cost.flops,
                activation_bytes=cost.activation_bytes,
                weight_bytes=BYTES * sum(math.prod(shape) for shape in shapes.values()),
            )
        files = tuple(self._used[name] for name in sorted(self._used))
        return ModelFolder(self._folder, files, footprint, layout.notes)

    def _network(self, config: Mapping[str, JsonValue], img_size: int | None) -> UNet2DSpec | None:
        """Returns the network's configuration; None for one of another package, which only the driver knows."""
        if is_unet2d(config):
            return read_unet2d(config, img_size)
        if not config.get("_class_name"):
            raise PipelineRejected(
                "its config.json is not that of a known network: it has neither _class_name nor block_out_channels"
            )
        return None

    def _weights(self, layout: Layout, name: str) -> dict[str, Tensor] | None:
        """Checks the weight files. Returns key -> tensor; None if a .bin file does not say."""
        if not name.endswith(".json"):
            return self._weight_file(name)
        entries = self._json(name).get("weight_map")
        if not isinstance(entries, dict) or not entries or not all(isinstance(it, str) for it in entries.values()):
            raise PipelineRejected(f"{name}: it has no weight_map of keys to files")
        shards = sorted({str(shard) for shard in entries.values()})
        if len(shards) > MAX_SHARDS:
            raise PipelineRejected(f"{name}: it names {len(shards)} shards; the maximum is {MAX_SHARDS}")
        tensors: dict[str, Tensor] | None = {}
        for shard in shards:
            path = f"{layout.unet}{shard}"
            # The listing has no names with .. in them, so a shard outside of the folder is not in it.
            if "/" in shard or path not in self._names:
                raise PipelineRejected(
                    f"{name}: its shard {shard} is not there: its upload or download is unfinished",
                    "download or copy it again",
                )
            found = self._weight_file(path)
            tensors = None if tensors is None or found is None else tensors | found
        if tensors is not None and (absent := entries.keys() - tensors.keys()):
            raise PipelineRejected(f"{name}: it lists {min(absent)}, which no shard holds", "download or copy it again")
        return tensors

    def _weight_file(self, name: str) -> dict[str, Tensor] | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                left = MAX_CHECKPOINT_BYTES - sum(it.bytes for it in self._used.values())
                if length > left:
                    raise RequestRejected(
                        f"{path} is {length:,} bytes long; the maximum is {MAX_CHECKPOINT_BYTES:,} for all files",
                        "larger networks are not drawn",
                    )
                _, _, tensors = detect_format(path, file, length)
                file.seek(0)
                self._note(name, length, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise RequestRejected(f"{path}: {error.strerror or error}", "check that the file can be read") from error
        return tensors

    def _json(self, name: str) -> dict[str, JsonValue]:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except OSError as error:
            raise RequestRejected(f"{path}: {error.strerror or error}", "check that the file can be read") from error
        if len(data) > MAX_JSON_BYTES:
            raise PipelineRejected(f"{name} has more than {MAX_JSON_BYTES:,} bytes")
        if data.startswith(b"version https://git-lfs"):
            raise PipelineRejected(f"{name} is a Git LFS pointer, not the file itself", "run `git lfs pull`")
        try:
            value = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise PipelineRejected(f"{name}: it is not valid JSON: {error}", "download or copy it again") from error
        if not isinstance(value, dict):
            raise PipelineRejected(f"{name}: it holds a {type(value).__name__} instead of an object")
        self._note(name, len(data), hashlib.sha256(data).hexdigest())
        return value

    def _note(self, name: str, length: int, sha256: str) -> None:
        if not name.isprintable():
            raise PipelineRejected(f"the file name {name!r} has control characters", "rename the file")
        self._used[name] = StoredFile(self._folder / name, name, length, sha256)


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises PipelineRejected if the weights are not those of the network that the configuration describes."""
    different = [
        f"{key} is {'x'.join(map(str, found[key]))} instead of {'x'.join(map(str, shape))}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    lists = (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unknown", sorted(found.keys() - expected.keys())),
        ("of another shape", different),
    )
    if any(keys for _, keys in lists):
        raise PipelineRejected(
            "its weights are not those of the network in its config.json: "
            + "; ".join(
                f"{len(keys)} {what} ({', '.join(keys[:MAX_LISTED])}{', ...' if len(keys) > MAX_LISTED else ''})"
                for what, keys in lists
                if keys
            ),
            "config.json and weights must be of the same training",
        )
