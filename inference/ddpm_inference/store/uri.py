"""Creates the storage backend of an output URI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.storage_backend import StorageBackend
from ddpm_inference.user_path import user_path


def backend_for(uri: str) -> StorageBackend:
    """Returns the backend for a path, a ``file://`` URI or ``s3://bucket/prefix``. Performs no I/O.

    ``~`` at the start of a path is the home folder.

    Raises:
        InvalidSpec: for any other URI.
    """
    if "\0" in uri:
        raise InvalidSpec(f"the output URI {uri!r} is not valid: it contains a null character")
    scheme, separator, rest = uri.partition("://")
    if uri and not separator:
        return Folder(user_path(uri).absolute())
    host, _, path = rest.partition("/")
    if scheme == "file" and host in {"", "localhost"}:
        return Folder(Path("/", unquote(path)))
    if scheme == "s3" and host:
        # The S3 client is slow to import, and a folder does not need it.
        from ddpm_inference.store.bucket import Bucket

        return Bucket(host, path.strip("/"))
    raise InvalidSpec(
        f"the output URI '{uri}' is not supported",
        hint="use the path of a folder, file:///path or s3://bucket/prefix",
    )
