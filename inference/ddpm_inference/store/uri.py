"""From the output URI a user gives to the place it names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.storage_backend import StorageBackend


def backend_for(uri: str) -> StorageBackend:
    """The place at a path, a ``file://`` URI or an ``s3://bucket/prefix``. Touches nothing.

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
        # Its client takes long to import, and a folder has no use for it.
        from ddpm_inference.store.bucket import Bucket

        return Bucket(host, path.strip("/"))
    raise InvalidSpec(
        f"the output URI '{uri}' is not known",
        hint="known are a folder's path, file:///path and s3://bucket/prefix",
    )
