"""Checkpoint locations: resolves a URI to bytes, from a file, the package, S3, or a public https URL."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.net import https_download
from ddpm_inference.net.blocked_addresses import BlockedAddress
from ddpm_inference.user_path import user_path

MAX_CHECKPOINT_BYTES = 4 << 30
"""Ten times the size of the widest networks that train on one GPU."""

SCHEMES = "a path, file://, builtin://, s3:// or https://"
RESERVED_SCHEME = "gs"
"""Allowed by the API of DDPMSampling, but not supported yet."""

_SIZE_HINT = "if it is still being uploaded, try again afterwards; otherwise do not trust this server"

BUILTIN_NAMES = ("mnist",)
PACKAGE = Path(__file__).resolve().parents[1]
BUILTIN_FOLDERS = (PACKAGE / "builtin", PACKAGE.parents[1] / "models")
"""Folders of the shipped checkpoints: inside the package of a wheel, or at the root of a checkout."""


def fetch(uri: str) -> bytes:
    """Reads the checkpoint at `uri`: a path, file://, builtin://NAME, s3://BUCKET/KEY or https://HOST/PATH.

    ``~`` at the start of a path is the home folder.

    Raises:
        InvalidSpec: if the URI is malformed or its scheme is unknown.
        ModelNotFound: if there is no such file, or it cannot be read.
        ModelRejected: if it is not a regular file, or larger than `MAX_CHECKPOINT_BYTES`.
    """
    if "\0" in uri:
        raise InvalidSpec(f"{uri!r} is not a valid URI: it contains a null character")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _read_file(user_path(uri), uri)
    match scheme:
        case "file":
            return _read_file(_local_path(uri), uri)
        case "builtin":
            return _read_file(_builtin(rest), uri)
        case "s3":
            return _read_s3(uri)
        case "https":
            return _read_https(uri)
        case _ if scheme == RESERVED_SCHEME:
            raise InvalidSpec(f"{uri}: {scheme}:// is not supported yet", hint=f"use {SCHEMES}")
        case _:
            raise InvalidSpec(f"{uri}: {scheme}:// is not known", hint=f"use {SCHEMES}")


def _local_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InvalidSpec(f"{uri} names another machine, {parts.netloc}", hint="three slashes: file:///path")
    return Path(unquote(parts.path))


def _builtin(name: str) -> Path:
    if name not in BUILTIN_NAMES:
        raise ModelNotFound(f"builtin://{name} is not shipped", hint=f"available: {', '.join(BUILTIN_NAMES)}")
    inside, beside = (folder / f"{name}.safetensors" for folder in BUILTIN_FOLDERS)
    return inside if inside.exists() else beside


def _read_file(path: Path, uri: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ModelRejected(f"{uri} is a {'folder' if path.is_dir() else 'device'}, not a file")
        with path.open("rb") as file:
            _check_size(os.fstat(file.fileno()).st_size, uri)
            return file.read()
    except FileNotFoundError as error:
        raise ModelNotFound(f"{uri} is not there", hint="check --model_path") from error
    except OSError as error:
        raise ModelNotFound(f"{uri} cannot be read: {error.strerror}") from error


def _read_s3(uri: str) -> bytes:
    # Imported here, as fsspec does: a checkpoint on disk does not need these libraries.
    from aiohttp import ClientError as HttpClientError
    from botocore.exceptions import BotoCoreError, ClientError

    from ddpm_inference.net.s3 import connection, read_at_most

    try:
        s3 = connection()
        size = s3.info(uri)["size"]
        _check_size(size, uri)
        data = read_at_most(s3, uri, size + 1)
        if len(data) != size:
            raise ModelRejected(f"{uri} does not have the {size:,} bytes that its server reported", hint=_SIZE_HINT)
        return data
    except FileNotFoundError as error:
        raise ModelNotFound(f"{uri} is not there: no such bucket or object", hint="check --model_path") from error
    except (OSError, ValueError, BotoCoreError, ClientError, HttpClientError) as error:
        raise ModelNotFound(
            f"{uri} cannot be read: {error}",
            hint="check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and their permissions",
        ) from error


def _read_https(uri: str) -> bytes:
    # Credentials and signatures in the URL must not reach the log.
    redacted = re.sub(r"//[^/]*@", "//", uri.partition("?")[0])
    try:
        return https_download.download(uri, MAX_CHECKPOINT_BYTES)
    except https_download.NotFound as error:
        raise ModelNotFound(f"{redacted} is not there: {error}", hint="check --model_path") from error
    except https_download.TooLarge as error:
        raise ModelRejected(f"{redacted} has {error}; a checkpoint may have {MAX_CHECKPOINT_BYTES:,}") from error
    except (https_download.DownloadError, BlockedAddress) as error:
        raise ModelNotFound(
            f"{redacted} cannot be read: {error}",
            hint="https:// works for public files, without authentication; upload other checkpoints to a bucket",
        ) from error


def _check_size(size: int, uri: str) -> None:
    if size > MAX_CHECKPOINT_BYTES:
        raise ModelRejected(f"{uri} has {size:,} bytes; a checkpoint may have {MAX_CHECKPOINT_BYTES:,}")
