"""Checks a local checkpoint file before it is uploaded. Nothing in the file is executed.

These checks only catch files that the driver is certain to reject, such as a truncated download. The driver validates
the tensors one by one.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ddpm_operator.api.spec import Footprint
from ddpm_operator.client.errors import RequestRejected

# The driver's own limits.
MAX_CHECKPOINT_BYTES = 4 << 30
_MAX_HEADER_BYTES = 1 << 20

_LENGTH_BYTES = 8
_METADATA_KEY = "__metadata__"
_OUR_METADATA_KEY = "ddpm_ray"
_GET_IT_AGAIN = "download or copy it again"

Suffix = Literal["safetensors", "pt"]


class ImageShape(BaseModel):
    """The image shape in a checkpoint's metadata, which sizes the plan and the output claim. None: not stated."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    img_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    channels: Annotated[int, Field(ge=1, le=64)] | None = None


class StoredFile(NamedTuple):
    """A local file, and what becomes of it on the claim.

    Attributes:
        name: its path on the claim.
    """

    path: Path
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class CheckpointFile:
    """A local file that looks like a valid checkpoint.

    Attributes:
        suffix: the file format, detected from its content and not from its name.
        bytes: its length.
        images: the image shape from its metadata; without metadata, all fields are None.
    """

    path: Path
    suffix: Suffix
    bytes: int
    sha256: str
    images: ImageShape
    footprint: Footprint | None = None

    @property
    def stored_as(self) -> str:
        """Its path on the claim."""
        return f"model.{self.suffix}"

    @property
    def stored(self) -> tuple[StoredFile, ...]:
        """The files to upload."""
        return (StoredFile(self.path, self.stored_as, self.bytes, self.sha256),)


class Tensor(BaseModel):
    """An entry of the header of a safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: Literal[1]
    model: ImageShape


_MetadataTexts = TypeAdapter(dict[str, str])
_Header = TypeAdapter(dict[str, object])


def checkpoint_file(path: Path) -> CheckpointFile:
    """Checks a file and hashes it.

    Raises:
        RequestRejected: if the file cannot be read, or is not a complete checkpoint.
    """
    try:
        length = path.stat().st_size
        if length > MAX_CHECKPOINT_BYTES:
            raise RequestRejected(
                f"{path} is {length:,} bytes long; the maximum is {MAX_CHECKPOINT_BYTES:,}",
                "save only the weights: model.state_dict(), without the optimizer",
            )
        with path.open("rb") as file:
            suffix, images, _ = detect_format(path, file, length)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestRejected(
            f"{path}: {error.strerror or error}",
            "--model_path takes a local file, or a URI such as builtin://mnist, pvc://claim/file or s3://bucket/key",
        ) from error
    return CheckpointFile(path, suffix, length, sha256, images)


def detect_format(path: Path, file: BinaryIO, length: int) -> tuple[Suffix, ImageShape, dict[str, Tensor] | None]:
    """Checks that an open file is a complete checkpoint.

    Returns:
        its format, the image shape in its metadata, and key -> tensor of a safetensors file.

    Raises:
        RequestRejected: if it is something else, or damaged.
    """
    start = file.read(_LENGTH_BYTES + 1)
    if start.startswith(b"PK\x03\x04"):
        _check_zip(path, file)
        return "pt", ImageShape(), None
    if start[_LENGTH_BYTES:] == b"{":
        file.seek(_LENGTH_BYTES)
        header_bytes = int.from_bytes(start[:_LENGTH_BYTES], "little")
        return "safetensors", *_check_safetensors(path, file, header_bytes, length)
    if not length:
        raise RequestRejected(f"{path} is empty", _GET_IT_AGAIN)
    if start.startswith(b"\x80"):
        raise RequestRejected(
            f"{path} is a bare pickle, which can contain code and is never loaded",
            "save model.state_dict() again with a current torch.save, or as safetensors",
        )
    if start.startswith(b"version "):
        raise RequestRejected(f"{path} is a Git LFS pointer, not the file itself", "run `git lfs pull`")
    raise RequestRejected(
        f"{path} is neither a safetensors file nor a .pt file from torch.save", "pass the path of a checkpoint"
    )


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Checks that a zip archive is complete and has the layout of torch.save."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            damaged = archive.testzip() if _is_uncompressed(archive) else None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise RequestRejected(f"{path} is a truncated or damaged .pt file: {error}", _GET_IT_AGAIN) from error
    if damaged is not None:
        raise RequestRejected(f"{path} is damaged: its entry {damaged!r} does not match its checksum", _GET_IT_AGAIN)
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise RequestRejected(
            f"{path} is a zip archive, but not one from torch.save", "save model.state_dict() with torch.save"
        )


def _is_uncompressed(archive: zipfile.ZipFile) -> bool:
    """Returns whether every entry is stored uncompressed, as the driver requires.

    Verifying the checksums of such an archive never reads more than the length of the file (no zip bomb).
    """
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _check_safetensors(
    path: Path, file: BinaryIO, header_bytes: int, length: int
) -> tuple[ImageShape, dict[str, Tensor]]:
    """Checks that the tensors in the header account for the whole file, and reads our own metadata."""
    if header_bytes > _MAX_HEADER_BYTES:
        raise RequestRejected(
            f"{path} is not a safetensors file, or it is damaged: its header claims {header_bytes:,} bytes; the "
            f"maximum is {_MAX_HEADER_BYTES:,}",
            _GET_IT_AGAIN,
        )
    try:
        entries = _Header.validate_json(file.read(header_bytes))
        metadata = _MetadataTexts.validate_python(entries.pop(_METADATA_KEY, {}))
        tensors = {key: Tensor.model_validate_json(json.dumps(entry)) for key, entry in entries.items()}
    except ValidationError as error:
        raise RequestRejected(
            f"{path} has a damaged safetensors header: {error.errors()[0]['msg']}", _GET_IT_AGAIN
        ) from error
    expected = _LENGTH_BYTES + header_bytes + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if expected != length:
        raise RequestRejected(
            f"{path} is {length:,} bytes long, but its header says {expected:,}",
            _GET_IT_AGAIN,
        )
    if _OUR_METADATA_KEY not in metadata:
        return ImageShape(), tensors
    return _parse_metadata(path, metadata[_OUR_METADATA_KEY]).model, tensors


def _parse_metadata(path: Path, text: str) -> _Metadata:
    try:
        return _Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RequestRejected(
            f"{path} has unsupported metadata: {field}: {first['msg']}",
            "it may come from a newer version of ddpm-ray: use the kubectl-ddpm of that version",
        ) from error
