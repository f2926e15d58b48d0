"""Where a checkpoint lies: a file, the package itself, S3, or a place that anybody may read by https."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.net import https_download
from ddpm_inference.net.blocked_addresses import BlockedAddress

MAX_CHECKPOINT_BYTES = 4 << 30
"""Bytes a checkpoint may have; the widest networks that train on one GPU are a tenth of it."""

SCHEMES = "a path, file://, builtin://, s3:// or https://"
LATER = "gs"
"""The API of DDPMSamplings has it, and nothing reads it yet."""

_WRONG_SIZE = "if it is being written, try again when it is there; otherwise do not trust this server"

SHIPPED = ("mnist",)
PACKAGE = Path(__file__).resolve().parents[1]
BUILTIN_FOLDERS = (PACKAGE / "builtin", PACKAGE.parents[1] / "models")
"""In a wheel the shipped checkpoints are inside the package; in a checkout they lie at its root."""


def fetch(uri: str) -> bytes:
    """The bytes of the checkpoint at `uri`: a path, file://, builtin://NAME, s3://BUCKET/KEY or https://HOST/PATH.

    Raises:
        InvalidSpec: for what is no place, or of a scheme that is not known.
        ModelNotFound: if nothing is there, or it may not be read.
        ModelRejected: for what is no file, or larger than `SIZE_LIMIT`.
    """
    if "\0" in uri:
        raise InvalidSpec(f"{uri!r} is no place: it holds a null character")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _read_file(Path(uri), uri)
    match scheme:
        case "file":
            return _read_file(_local_path(uri), uri)
        case "builtin":
            return _read_file(_builtin(rest), uri)
        case "s3":
            return _read_s3(uri)
        case "https":
            return _read_https(uri)
        case _ if scheme == LATER:
            raise InvalidSpec(f"{uri}: {scheme}:// is not supported yet", hint=f"use {SCHEMES}")
        case _:
            raise InvalidSpec(f"{uri}: {scheme}:// is not known", hint=f"use {SCHEMES}")


def _local_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InvalidSpec(f"{uri} names another machine, {parts.netloc}", hint="three slashes: file:///path")
    return Path(unquote(parts.path))


def _builtin(name: str) -> Path:
    if name not in SHIPPED:
        raise ModelNotFound(f"builtin://{name} is not shipped", hint=f"there is: {', '.join(SHIPPED)}")
    inside, beside = (folder / f"{name}.safetensors" for folder in BUILTIN_FOLDERS)
    return inside if inside.exists() else beside


def _read_file(path: Path, uri: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelRejected(f"{uri} is a {'folder' if path.is_dir() else 'device'}, not a file")
        with path.open("rb") as file:
            _refuse_larger(os.fstat(file.fileno()).st_size, uri)
            return file.read()
    except FileNotFoundError as error:
        raise ModelNotFound(f"{uri} is not there", hint="check --model_path") from error
    except OSError as error:
        raise ModelNotFound(f"{uri} cannot be read: {error.strerror}") from error


def _read_s3(uri: str) -> bytes:
    # Imported here, as fsspec does it: a checkpoint on disk does not need them.
    from aiohttp import ClientError as ConnectionFailed
    from botocore.exceptions import BotoCoreError, ClientError

    from ddpm_inference.net.s3 import connection, read_at_most

    try:
        s3 = connection()
        size = s3.info(uri)["size"]
        _refuse_larger(size, uri)
        data = read_at_most(s3, uri, size + 1)
        if len(data) != size:
            raise ModelRejected(f"{uri} is not of the {size:,} bytes that its server says", hint=_WRONG_SIZE)
        return data
    except FileNotFoundError as error:
        raise ModelNotFound(f"{uri} is not there: no such bucket or object", hint="check --model_path") from error
    except (OSError, ValueError, BotoCoreError, ClientError, ConnectionFailed) as error:
        raise ModelNotFound(
            f"{uri} cannot be read: {error}",
            hint="check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and their rights there",
        ) from error


def _read_https(uri: str) -> bytes:
    # Whoever has put a password or a signature into the address did not mean it for a log.
    shown = re.sub(r"//[^/]*@", "//", uri.partition("?")[0])
    try:
        return https_download.read_at_most(uri, MAX_CHECKPOINT_BYTES)
    except https_download.Absent as fault:
        raise ModelNotFound(f"{shown} is not there: {fault}", hint="check --model_path") from fault
    except https_download.TooLarge as fault:
        raise ModelRejected(f"{shown} has {fault}; a checkpoint may have {MAX_CHECKPOINT_BYTES:,}") from fault
    except (https_download.DownloadError, BlockedAddress) as fault:
        raise ModelNotFound(
            f"{shown} cannot be read: {fault}",
            hint="by https comes only what anybody may read without a login; put other checkpoints into a bucket",
        ) from fault


def _refuse_larger(size: int, uri: str) -> None:
    if size > MAX_CHECKPOINT_BYTES:
        raise ModelRejected(f"{uri} has {size:,} bytes; a checkpoint may have {MAX_CHECKPOINT_BYTES:,}")
