"""The client's view of manifest.json, which a driver writes last into a sampling's output. Pure.

The manifest lists every stored file with its length and sha256. `fetch` and the chart's `helm test` check the output
against it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddpm_operator.client.errors import Damaged

MANIFEST_NAME = "manifest.json"
_SAMPLES_NAME = "samples.npy"
_READ_BYTES = 1 << 20

Size = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# These become file names in the user's folder: no slash, and no leading dot.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class StoredFile(NamedTuple):
    """A file of the output: its path relative to the output, its length in bytes, and its sha256."""

    path: str
    bytes: int
    sha256: str


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _File(_Model):
    bytes: Size
    sha256: Sha256


class _Shard(_File):
    first: Size
    last: Size


class OutputManifest(_Model):
    """The fields of manifest.json, version 1, that the client needs."""

    version: Annotated[int, Field(ge=1, le=1)]
    n_samples: Size
    shards: tuple[_Shard, ...]
    files: dict[FileName, _File]

    @classmethod
    def parse(cls, text: bytes, sha256: str) -> OutputManifest:
        """Parses a manifest whose sha256 the sampling's status records.

        Raises:
            Damaged: if the text has another sha256, or is not a valid manifest.
        """
        actual = hashlib.sha256(text).hexdigest()
        if actual != sha256:
            raise Damaged(
                f"{MANIFEST_NAME} in the output has the sha256 {actual}, but the status says {sha256}",
                "check whether another job writes to the same output; a sampling that is growing will be complete "
                "again soon",
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise Damaged(
                f"{MANIFEST_NAME} is not in a supported format: {error.errors()[0]['msg']}",
                "use the kubectl-ddpm of the operator's version",
            ) from error

    @property
    def wanted(self) -> tuple[StoredFile, ...]:
        """The files to fetch: those made from the shards, and the shards only if there is no samples.npy."""
        files = [StoredFile(name, file.bytes, file.sha256) for name, file in sorted(self.files.items())]
        if _SAMPLES_NAME not in self.files:
            files += [
                StoredFile(f"shards/{shard.first:09d}-{shard.last:09d}.npz", shard.bytes, shard.sha256)
                for shard in self.shards
            ]
        return tuple(files)


def is_whole(path: Path, file: StoredFile) -> bool:
    """Returns whether a local file exists with the length and sha256 of the manifest."""
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256
