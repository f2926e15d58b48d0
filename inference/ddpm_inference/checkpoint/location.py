"""The bytes of a checkpoint that is a single file; see `source` for what a URI may be."""

from __future__ import annotations

from ddpm_inference.checkpoint.source import BUILTIN_NAMES, open_source
from ddpm_inference.errors import ModelRejected

__all__ = ["BUILTIN_NAMES", "fetch"]


def fetch(uri: str) -> bytes:
    """Reads the file at `uri`.

    Raises:
        InvalidSpec: if the URI is malformed or its scheme is unknown.
        ModelNotFound: if there is no such file, or it cannot be read.
        ModelRejected: if it is not a regular file, or larger than `source.MAX_CHECKPOINT_BYTES`.
    """
    source = open_source(uri)
    if not source.is_file:
        raise ModelRejected(f"{source.uri} is a folder, not a file")
    return source.read("")
