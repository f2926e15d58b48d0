"""manifest.json as `kubectl ddpm fetch` gets it: Damaged, or all its names stay below the user's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.output_manifest import OutputManifest
from tests.fuzz.documents import mutate

__all__ = ["mutate", "one", "seeds"]

SUM = "ab" * 32


def seeds() -> Iterator[bytes]:
    shards = [{"first": first, "last": first + 7, "bytes": 9, "sha256": SUM} for first in (0, 8)]
    for files in ({}, {"samples.npy": {"bytes": 9, "sha256": SUM}, "grid.png": {"bytes": 9, "sha256": SUM}}):
        yield json.dumps({"version": 1, "n_samples": 16, "shards": shards, "files": files}).encode()


def one(data: bytes) -> None:
    try:
        manifest = OutputManifest.parse(data, hashlib.sha256(data).hexdigest())
    except Damaged:
        return
    for file in manifest.wanted:
        path = PurePosixPath(file.path)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert len(path.parts) <= 2
        assert not path.name.startswith(".")
        assert file.bytes >= 0
