"""Creates the storage backend of an output URI."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.storage_backend import StorageBackend


def backend_for(uri: str) -> StorageBackend:
    """Returns the backend for a path, a ``file://`` URI or ``s3://bucket/prefix``. Performs no I/O.

    Raises:
        InvalidSpec: for any other URI.
    """
    scheme, separator, rest = uri.partition("://")
    if uri and not separator:
        return Folder(Path(uri).absolute())
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
