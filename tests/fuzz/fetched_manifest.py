"""manifest.json as `kubectl ddpm fetch` reads it: Damaged is raised, or all paths stay inside the user's folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.output_manifest import OutputManifest
from tests.fuzz.documents import mutate

__all__ = ["fuzz_one", "mutate", "seeds"]

SHA256 = "ab" * 32


def seeds() -> Iterator[bytes]:
    shards = [{"first": first, "last": first + 7, "bytes": 9, "sha256": SHA256} for first in (0, 8)]
    for files in ({}, {"samples.npy": {"bytes": 9, "sha256": SHA256}, "grid.png": {"bytes": 9, "sha256": SHA256}}):
        yield json.dumps({"version": 1, "n_samples": 16, "shards": shards, "files": files}).encode()


def fuzz_one(data: bytes) -> None:
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
