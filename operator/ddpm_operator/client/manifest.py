"""A sampling's manifest as it is stored, and which of its files a person wants. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddpm_operator.client.errors import Damaged

NAME = "manifest.json"
SAMPLES = "samples.npy"
_AT_ONCE = 1 << 20

Size = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# They become names in the user's folder: no slash, no dot at the beginning.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class StoredFile(NamedTuple):
    """One file below the output's place: its path there, its length in bytes, its sha256."""

    path: str
    bytes: int
    sha256: str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _File(_Part):
    bytes: Size
    sha256: Sha256


class _Shard(_File):
    first: Size
    last: Size


class Manifest(_Part):
    """Of manifest.json, version 1, what a reader needs."""

    version: Annotated[int, Field(ge=1, le=1)]
    n_samples: Size
    shards: tuple[_Shard, ...]
    files: dict[FileName, _File]

    @classmethod
    def read(cls, text: bytes, sha256: str) -> Manifest:
        """Reads the manifest that the status names.

        Raises:
            Damaged: if it is another one, or none.
        """
        found = hashlib.sha256(text).hexdigest()
        if found != sha256:
            raise Damaged(
                f"{NAME} at the output has the sha256 {found}, and the status says {sha256}",
                "see who else writes there; a sampling that has grown meanwhile is complete again soon",
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise Damaged(
                f"{NAME} is none that this command knows: {error.errors()[0]['msg']}",
                "use the kubectl-ddpm of the operator's own version",
            ) from error

    @property
    def wanted(self) -> tuple[StoredFile, ...]:
        """What a person is given: the files made of the shards; the shards too where there is no samples.npy."""
        files = [StoredFile(name, file.bytes, file.sha256) for name, file in sorted(self.files.items())]
        if SAMPLES not in self.files:
            files += [
                StoredFile(f"shards/{one.first:09d}-{one.last:09d}.npz", one.bytes, one.sha256) for one in self.shards
            ]
        return tuple(files)


def is_whole(path: Path, file: StoredFile) -> bool:
    """Whether a file of this length and sha256 is there."""
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest() == file.sha256
