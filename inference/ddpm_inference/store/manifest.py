"""The manifest, which lists the shards and files of a complete job, and the selection of shards for N samples."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ddpm_inference.job import CompactModel, Hardware, Identity, Sha256, Shard, StrictModel, shards_of


class FileRecord(StrictModel):
    """A stored file: its size in bytes and its sha256."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class ShardRecord(CompactModel, Shard):
    """A stored shard: its range, and the size in bytes and sha256 of its file. `size` counts samples.

    Attributes:
        hardware: that drew the shard, if it is not the identity's.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"hardware"})

    bytes: Annotated[int, Field(ge=1)]
    sha256: Sha256
    hardware: Hardware | None = None

    @property
    def shard(self) -> Shard:
        return Shard(first=self.first, last=self.last)


class Manifest(StrictModel):
    """Contents of a complete job. It contains no times and no paths, so equal jobs have equal manifests.

    Attributes:
        shape: (C, H, W) of one sample.
        shards: of samples 0 to n_samples - 1, in order, each sample exactly once.
        files: derived from the shards (``samples.npy``, ``grid.png``), by name.
    """

    version: Literal[1] = 1
    fingerprint: Sha256
    identity: Identity
    n_samples: Annotated[int, Field(ge=1)]
    shape: tuple[int, int, int]
    dtype: Literal["float32"] = "float32"
    shards: tuple[ShardRecord, ...]
    files: dict[str, FileRecord]

    @classmethod
    def of(
        cls, identity: Identity, n_samples: int, shards: Iterable[ShardRecord], files: dict[str, FileRecord]
    ) -> Manifest:
        """Creates the manifest of a job from its shards, in order."""
        return cls(
            fingerprint=identity.fingerprint,
            identity=identity,
            n_samples=n_samples,
            shape=identity.model.image_shape,
            shards=tuple(shards),
            files=files,
        )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.fingerprint != self.identity.fingerprint:
            raise ValueError("the fingerprint is not that of the identity")
        if self.shape != self.identity.model.image_shape:
            raise ValueError(f"the shape {self.shape} is not that of the model, {self.identity.model.image_shape}")
        expected = shards_of(self.n_samples, self.identity.batch_size)
        for index, (listed, shard) in enumerate(zip(self.shards, expected, strict=False)):
            if (listed.first, listed.last) != (shard.first, shard.last):
                raise ValueError(
                    f"shard {index} holds samples {listed.first} to {listed.last}, not {shard.first} to {shard.last}"
                )
        if sum(shard.size for shard in self.shards) != self.n_samples:
            raise ValueError(f"the shards do not account for {self.n_samples} samples")
        return self


class Selection(NamedTuple):
    """Shards for N samples: those that are stored, and those that must still be sampled, each in order."""

    usable: list[ShardRecord]
    missing: list[Shard]


def select(records: Iterable[ShardRecord], n_samples: int, batch_size: int) -> Selection:
    """Selects, from intact shards, those of samples 0 to N-1.

    A shard is usable only for exactly its range: if the last one is shorter or longer than N needs, that batch is
    sampled again. Other records are ignored: those that begin at no multiple of the batch size, or beyond N.
    """
    stored = {(record.first, record.last): record for record in records}
    selection = Selection([], [])
    for shard in shards_of(n_samples, batch_size):
        record = stored.get((shard.first, shard.last))
        if record is None:
            selection.missing.append(shard)
        else:
            selection.usable.append(record)
    return selection


def superseded(shards: Iterable[Shard], manifest: Manifest) -> list[Shard]:
    """Returns those of `shards` that a longer shard of the same batch in the manifest replaces."""
    lasts = {record.first: record.last for record in manifest.shards}
    return [shard for shard in shards if shard.last < lasts.get(shard.first, -1)]
