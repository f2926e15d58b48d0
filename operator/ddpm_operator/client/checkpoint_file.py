"""A checkpoint on the user's machine, looked at before it is sent anywhere. Nothing in it is executed.

The driver judges it, tensor by tensor; here only what no driver would take is refused, such as a download that was
cut short.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ddpm_operator.client.errors import RequestRejected

# The limits of the driver.
LARGEST = 4 << 30
_LARGEST_HEADER = 1 << 20

_LENGTH_BYTES = 8
_METADATA = "__metadata__"
_OURS = "ddpm_ray"
_AGAIN = "download or copy it again"

Suffix = Literal["safetensors", "pt"]


class Images(BaseModel):
    """The images that a checkpoint is for, as far as it says so: what a plan and a claim's size are made from."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    img_size: Annotated[int, Field(ge=1, le=1024)] | None = None
    channels: Annotated[int, Field(ge=1, le=64)] | None = None


@dataclass(frozen=True)
class CheckpointFile:
    """A file that can be a checkpoint.

    Attributes:
        suffix: what kind of file it is, whatever it is called.
        bytes: its length.
        images: what its own metadata says of them; none without metadata.
    """

    path: Path
    suffix: Suffix
    bytes: int
    sha256: str
    images: Images


class _Tensor(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Metadata(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: Literal[1]
    model: Images


_Texts = TypeAdapter(dict[str, str])
_Header = TypeAdapter(dict[str, object])


def checkpoint_file(path: Path) -> CheckpointFile:
    """Reads a file as a whole, once.

    Raises:
        Refused: if it is not there, or no whole checkpoint.
    """
    try:
        length = path.stat().st_size
        if length > LARGEST:
            raise RequestRejected(f"{path} has {length:,} bytes of at most {LARGEST:,}", "give the weights alone")
        with path.open("rb") as file:
            suffix, images = _kind(path, file, length)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestRejected(
            f"{path}: {error.strerror or error}",
            "--model_path is a file of this machine, or builtin://mnist, pvc://claim/file, s3://bucket/key, …",
        ) from error
    return CheckpointFile(path, suffix, length, sha256, images)


def _kind(path: Path, file: BinaryIO, length: int) -> tuple[Suffix, Images]:
    beginning = file.read(_LENGTH_BYTES + 1)
    if beginning.startswith(b"PK\x03\x04"):
        _check_zip(path, file)
        return "pt", Images()
    if beginning[_LENGTH_BYTES:] == b"{":
        file.seek(_LENGTH_BYTES)
        header = int.from_bytes(beginning[:_LENGTH_BYTES], "little")
        return "safetensors", _check_header(path, file, header, length)
    if not length:
        raise RequestRejected(f"{path} is empty", _AGAIN)
    if beginning.startswith(b"\x80"):
        raise RequestRejected(
            f"{path} is a bare pickle, which may carry code and is never loaded",
            "save model.state_dict() again with a current torch.save, or as safetensors",
        )
    if beginning.startswith(b"version "):
        raise RequestRejected(f"{path} is a Git LFS pointer, not the file it stands for", "run git lfs pull")
    raise RequestRejected(
        f"{path} is neither a safetensors file nor a .pt file by torch.save", "give the checkpoint itself"
    )


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Whole, and with what torch.save puts into one."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            damaged = archive.testzip() if _is_stored(archive) else None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise RequestRejected(f"{path} is a .pt file that is cut short or damaged: {error}", _AGAIN) from error
    if damaged is not None:
        raise RequestRejected(f"{path} is damaged: its entry {damaged!r} does not match its checksum", _AGAIN)
    if not any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        raise RequestRejected(
            f"{path} is a zip archive, but none that torch.save made", "save model.state_dict() with torch.save"
        )


def _is_stored(archive: zipfile.ZipFile) -> bool:
    """Nothing is compressed, so that reading it all takes no more than its length; the driver takes no other."""
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _check_header(path: Path, file: BinaryIO, header: int, length: int) -> Images:
    """The tensors that a safetensors header lists fill the rest of the file; metadata of ours can be read."""
    if header > _LARGEST_HEADER:
        raise RequestRejected(
            f"{path} is no safetensors file, or damaged: its header claims {header:,} bytes of at most "
            f"{_LARGEST_HEADER:,}",
            _AGAIN,
        )
    try:
        entries = _Header.validate_json(file.read(header))
        texts = _Texts.validate_python(entries.pop(_METADATA, {}))
        tensors = [_Tensor.model_validate_json(json.dumps(entry)) for entry in entries.values()]
    except ValidationError as error:
        raise RequestRejected(f"{path} has a damaged safetensors header: {error.errors()[0]['msg']}", _AGAIN) from error
    ends = _LENGTH_BYTES + header + max((tensor.data_offsets[1] for tensor in tensors), default=0)
    if ends != length:
        raise RequestRejected(f"{path} has {length:,} bytes, and its header says {ends:,}", _AGAIN)
    return _metadata(path, texts[_OURS]).model if _OURS in texts else Images()


def _metadata(path: Path, text: str) -> _Metadata:
    try:
        return _Metadata.model_validate_json(text)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise RequestRejected(
            f"{path} has metadata that is not known: {where}: {wrong['msg']}",
            "it may be of a newer version of this program: use its own kubectl-ddpm",
        ) from error
