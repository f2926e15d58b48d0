"""Sources of a checkpoint: what is at a URI, as a set of named files that can be read one by one.

A source is a file or a folder: on this machine, in the package, on S3, on a public https server or on the Hugging Face
hub. `pipeline_folder` chooses the files to read; nothing else is downloaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from ddpm_inference.checkpoint import hub_uri
from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.job import ModelFile
from ddpm_inference.net import https_download
from ddpm_inference.net.blocked_addresses import BlockedAddress
from ddpm_inference.net.hub import HubError, HubRepository, Oversized, open_repository
from ddpm_inference.user_path import user_path

MAX_CHECKPOINT_BYTES = 4 << 30
"""Ten times the size of the widest networks that train on one GPU."""
MAX_ENTRIES = 20_000
"""Files of a folder that are listed."""
MAX_DEPTH = 4
"""Levels of subfolders that are listed: one more than ``run/checkpoint-500/unet_ema/config.json``."""

SCHEMES = "a path, file://, builtin://, s3://, https:// or hf://"
RESERVED_SCHEME = "gs"
"""Allowed by the API of DDPMSampling, but not supported yet."""
SIZE_HINT = "if it is still being uploaded, try again afterwards; otherwise do not trust this server"
S3_HINT = "check AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and their permissions"

BUILTIN_NAMES = ("mnist",)
PACKAGE = Path(__file__).resolve().parents[1]
BUILTIN_FOLDERS = (PACKAGE / "builtin", PACKAGE.parents[1] / "models")
"""Folders of the shipped checkpoints: inside the package of a wheel, or at the root of a checkout."""


class Source(ABC):
    """The files at a URI.

    Attributes:
        uri: as in messages: without credentials and signatures.
        is_file: whether the URI is that of one file, whose name in `entries` is "".
        revision: the commit of a repository; None elsewhere.
        used: the files that were read, in the order of reading.
    """

    uri: str
    is_file: bool
    revision: str | None = None

    def __init__(self, uri: str, *, is_file: bool) -> None:
        self.uri, self.is_file = uri, is_file
        self.used: dict[str, ModelFile] = {}

    @property
    @abstractmethod
    def entries(self) -> Mapping[str, int | None]:
        """Path below the URI -> size in bytes, None if it is unknown."""

    @abstractmethod
    def _read(self, name: str, max_bytes: int) -> bytes:
        """Returns the content of a file of `entries`; raises ModelRejected if it has more than `max_bytes`."""

    def stated_sha256(self, name: str) -> str | None:
        """Returns the sha256 that the server states for a file; None if it states none."""
        return None

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Returns the content of a file, and records its sha256 in `used`.

        Args:
            max_bytes: the largest size that is accepted; `MAX_CHECKPOINT_BYTES` if None.

        Raises:
            ModelNotFound: if it is not there or cannot be read.
            ModelRejected: if it is larger than `max_bytes`, or not what the server says that it is.
        """
        data = self._read(name, MAX_CHECKPOINT_BYTES if max_bytes is None else max_bytes)
        sha256 = hashlib.sha256(data).hexdigest()
        stated = self.stated_sha256(name)
        if stated not in (None, sha256):
            raise ModelRejected(
                f"{self.where(name)} has the sha256 {sha256}, but its server states {stated}",
                hint="it was damaged on its way or in the cache: remove it there, and try again",
            )
        self.used[name] = ModelFile(name=name or self.uri.rpartition("/")[2], bytes=len(data), sha256=sha256)
        return data

    def where(self, name: str) -> str:
        """Returns the address of a file, for messages."""
        return f"{self.uri.rstrip('/')}/{name}" if name else self.uri

    def too_large(self, name: str, size: str, max_bytes: int) -> ModelRejected:
        """Returns the error for a file that is larger than it may be."""
        return ModelRejected(f"{self.where(name)} has {size}; it may have {max_bytes:,}")


def open_source(uri: str, *, revision: str | None = None) -> Source:
    """Opens the file or folder at a URI.

    Args:
        uri: a path, ``file://``, ``builtin://NAME``, ``s3://BUCKET/KEY``, ``https://HOST/PATH`` (a folder ends in ``/``)
            or ``hf://org/name[@revision][/subfolder]``. ``~`` at the start of a path is the home folder.
        revision: the commit to use of an ``hf://`` URI, instead of what its own revision is now.

    Raises:
        InvalidSpec: if the URI is malformed or its scheme is unknown.
        ModelNotFound: if nothing is there, or it cannot be read.
        ModelRejected: if it is neither a file nor a folder.
    """
    if "\0" in uri:
        raise InvalidSpec(f"{uri!r} is not a valid URI: it contains a null character")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _local(user_path(uri), uri)
    match scheme:
        case "file":
            return _local(_local_path(uri), uri)
        case "builtin":
            return _local(_builtin(rest), uri)
        case "s3":
            return S3Source.open(uri)
        case "https":
            return HttpsFolder(uri) if urlsplit(uri).path.endswith("/") else HttpsFile(uri)
        case hub_uri.SCHEME:
            return HubSource.open(uri, revision)
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


def _local(path: Path, uri: str) -> Source:
    try:
        kind = path.stat().st_mode
    except FileNotFoundError as error:
        if path.is_symlink():
            raise _dangling(uri) from error
        raise ModelNotFound(f"{uri} is not there", hint="check --model_path") from error
    except OSError as error:
        raise ModelNotFound(f"{uri} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(kind):
        return LocalSource(uri, path, is_file=False)
    if stat.S_ISREG(kind):
        return LocalSource(uri, path, is_file=True)
    raise ModelRejected(f"{uri} is a device, not a file or folder")


def _dangling(where: str) -> ModelNotFound:
    return ModelNotFound(
        f"{where} is a link to a file that is not there", hint="in a git-annex repository run git annex get"
    )


class LocalSource(Source):
    """A file or folder of this machine."""

    def __init__(self, uri: str, path: Path, *, is_file: bool) -> None:
        super().__init__(uri, is_file=is_file)
        self._path = path

    @cached_property
    def entries(self) -> Mapping[str, int | None]:
        if self.is_file:
            return {"": None}
        found: dict[str, int | None] = {}
        self._list(self._path, "", found)
        return found

    def _list(self, folder: Path, prefix: str, found: dict[str, int | None]) -> None:
        try:
            with os.scandir(folder) as listing:
                children = sorted(listing, key=lambda child: child.name)
        except OSError as error:
            if not prefix:
                raise ModelNotFound(f"{self.uri} cannot be read: {error.strerror}") from error
            return  # an unreadable subfolder is as good as none
        for child in children:
            if len(found) > MAX_ENTRIES:
                raise ModelRejected(
                    f"{self.uri} holds more than {MAX_ENTRIES:,} files", hint="give the folder of the pipeline itself"
                )
            name = f"{prefix}{child.name}"
            # Links to folders are not followed, which could lead in circles. Links to files are: caches consist of them.
            if child.is_dir(follow_symlinks=False):
                if not child.name.startswith(".") and prefix.count("/") < MAX_DEPTH:
                    self._list(folder / child.name, f"{name}/", found)
            elif not child.is_dir():
                found[name] = None

    def _read(self, name: str, max_bytes: int) -> bytes:
        path, where = self._path / name if name else self._path, self.where(name)
        try:
            if path.exists() and not path.is_file():
                raise ModelRejected(f"{where} is a {'folder' if path.is_dir() else 'device'}, not a file")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > max_bytes:
                    raise self.too_large(name, f"{size:,} bytes", max_bytes)
                data = file.read(max_bytes + 1)
        except FileNotFoundError as error:
            if path.is_symlink():
                raise _dangling(where) from error
            raise ModelNotFound(f"{where} is not there", hint="check --model_path") from error
        except OSError as error:
            raise ModelNotFound(f"{where} cannot be read: {error.strerror}") from error
        if len(data) > max_bytes:
            raise self.too_large(name, f"more than {max_bytes:,} bytes", max_bytes)
        return data


class S3Source(Source):
    """An object, or the objects below a prefix."""

    def __init__(self, uri: str, sizes: Mapping[str, int], *, is_file: bool) -> None:
        super().__init__(uri, is_file=is_file)
        self._sizes = sizes

    @classmethod
    def open(cls, uri: str) -> S3Source:
        # Imported here, as fsspec does: a checkpoint on disk does not need these libraries.
        from aiohttp import ClientError as HttpClientError
        from botocore.exceptions import BotoCoreError, ClientError

        from ddpm_inference.net.s3 import connection, list_objects

        try:
            s3 = connection()
            info = s3.info(uri)
            if info["type"] == "file" and not uri.endswith("/"):
                return cls(uri, {"": int(info["size"])}, is_file=True)
            listed = list_objects(s3, uri, MAX_ENTRIES)
        except FileNotFoundError as error:
            raise ModelNotFound(f"{uri} is not there: no such bucket or object", hint="check --model_path") from error
        except (OSError, ValueError, KeyError, TypeError, BotoCoreError, ClientError, HttpClientError) as error:
            raise ModelNotFound(f"{uri} cannot be read: {error}", hint=S3_HINT) from error
        if listed is None:
            raise ModelRejected(
                f"{uri} holds more than {MAX_ENTRIES:,} objects", hint="give the prefix of the pipeline itself"
            )
        sizes = {name: size for name, size in listed.items() if name and not name.endswith("/")}
        if not sizes:
            raise ModelNotFound(f"{uri} is not there: no object below it", hint="check --model_path")
        return cls(uri, sizes, is_file=False)

    @property
    def entries(self) -> Mapping[str, int | None]:
        return self._sizes

    def _read(self, name: str, max_bytes: int) -> bytes:
        from aiohttp import ClientError as HttpClientError
        from botocore.exceptions import BotoCoreError, ClientError

        from ddpm_inference.net.s3 import connection, read_at_most

        where, size = self.where(name), self._sizes[name]
        if size > max_bytes:
            raise self.too_large(name, f"{size:,} bytes", max_bytes)
        try:
            data = read_at_most(connection(), where, size + 1)
        except FileNotFoundError as error:
            raise ModelNotFound(f"{where} is not there: no such bucket or object", hint="check --model_path") from error
        except (OSError, ValueError, BotoCoreError, ClientError, HttpClientError) as error:
            raise ModelNotFound(f"{where} cannot be read: {error}", hint=S3_HINT) from error
        if len(data) != size:
            raise ModelRejected(f"{where} does not have the {size:,} bytes that its server reported", hint=SIZE_HINT)
        return data


HTTPS_HINT = "https:// works for public files, without authentication; upload other checkpoints to a bucket"
HTTPS_FOLDER_HINT = "check --model_path; the URL of a folder must end in /"


def redacted(uri: str) -> str:
    """Returns an https URI without credentials and without its query, which may be a signature."""
    return re.sub(r"//[^/]*@", "//", uri.partition("?")[0].partition("#")[0])


class HttpsFile(Source):
    """A file on a public https server."""

    def __init__(self, uri: str) -> None:
        super().__init__(redacted(uri), is_file=True)
        self._url = uri

    @property
    def entries(self) -> Mapping[str, int | None]:
        return {"": None}

    def _read(self, name: str, max_bytes: int) -> bytes:
        try:
            return https_download.download(self._url, max_bytes)
        except https_download.NotFound as error:
            raise ModelNotFound(f"{self.uri} is not there: {error}", hint=HTTPS_FOLDER_HINT) from error
        except https_download.TooLarge as error:
            raise self.too_large("", str(error), max_bytes) from error
        except (https_download.DownloadError, BlockedAddress) as error:
            raise ModelNotFound(f"{self.uri} cannot be read: {error}", hint=HTTPS_HINT) from error


class HttpsFolder(Source):
    """A folder on a public https server, which cannot be listed: files are looked for by their usual names."""

    def __init__(self, uri: str) -> None:
        super().__init__(redacted(uri), is_file=False)
        self._parts = urlsplit(uri)
        self._found: dict[str, bytes] = {}
        self._absent: dict[str, https_download.DownloadError] = {}

    @cached_property
    def entries(self) -> Mapping[str, int | None]:
        from ddpm_inference.checkpoint.pipeline_folder import MAX_JSON_BYTES, WEIGHT_NAMES, probe_names

        for name in probe_names():
            self._probe(name, MAX_JSON_BYTES)
        if self._found:
            folders = [folder for folder in ("unet/", "") if any(f"{folder}{name}" in self._found for name in CONFIGS)]
            for folder in folders[:1]:
                any(self._probe(f"{folder}{name}", MAX_CHECKPOINT_BYTES) for name in WEIGHT_NAMES)
        elif any(isinstance(error, https_download.Forbidden) for error in self._absent.values()):
            raise ModelNotFound(f"{self.uri} cannot be read: its server answers 403", hint=HTTPS_HINT)
        return {name: len(data) for name, data in self._found.items()}

    def _probe(self, name: str, max_bytes: int) -> bool:
        """Returns whether there is a file of this name, which is then kept."""
        if name not in self._found and name not in self._absent:
            try:
                self._found[name] = self._get(name, max_bytes)
            except (https_download.NotFound, https_download.Forbidden) as error:
                self._absent[name] = error
        return name in self._found

    def _get(self, name: str, max_bytes: int) -> bytes:
        url = urlunsplit(self._parts._replace(path=self._parts.path + name, fragment=""))
        try:
            return https_download.download(url, max_bytes)
        except (https_download.NotFound, https_download.Forbidden):
            raise
        except https_download.TooLarge as error:
            raise self.too_large(name, str(error), max_bytes) from error
        except (https_download.DownloadError, BlockedAddress) as error:
            raise ModelNotFound(f"{self.where(name)} cannot be read: {error}", hint=HTTPS_HINT) from error

    def _read(self, name: str, max_bytes: int) -> bytes:
        if not self._probe(name, max_bytes):
            raise ModelNotFound(f"{self.where(name)} is not there: {self._absent[name]}", hint="check --model_path")
        if len(self._found[name]) > max_bytes:
            raise self.too_large(name, f"{len(self._found[name]):,} bytes", max_bytes)
        return self._found.pop(name) if len(self._found[name]) > (1 << 20) else self._found[name]


CONFIGS = ("config.json", "unet_config.json")


class HubSource(Source):
    """A repository of the Hugging Face hub at one commit, or a folder or file of it."""

    def __init__(self, parsed: hub_uri.HubUri, repository: HubRepository) -> None:
        super().__init__(parsed.at(repository.commit), is_file="" in repository.files)
        self.revision = repository.commit
        self._repository = repository

    @classmethod
    def open(cls, uri: str, revision: str | None) -> HubSource:
        """Resolves the revision of a URI, or `revision` instead of it, to a commit."""
        parsed = hub_uri.parse(uri)
        try:
            return cls(parsed, open_repository(parsed.repo_id, revision or parsed.revision, parsed.path))
        except HubError as error:
            raise ModelNotFound(f"{parsed} cannot be read: {error}", hint=error.hint) from error

    @property
    def entries(self) -> Mapping[str, int | None]:
        return {name: file.bytes for name, file in self._repository.files.items()}

    def stated_sha256(self, name: str) -> str | None:
        return self._repository.files[name].sha256

    def _read(self, name: str, max_bytes: int) -> bytes:
        try:
            return self._repository.read(name, max_bytes)
        except Oversized as error:
            if (self._repository.files[name].bytes or 0) > max_bytes:
                raise self.too_large(name, str(error), max_bytes) from error
            raise ModelRejected(
                f"{self.where(name)} has {error}, which is not the size that its server stated", hint=SIZE_HINT
            ) from error
        except HubError as error:
            raise ModelNotFound(f"{self.uri} cannot be read: {error}", hint=error.hint) from error
