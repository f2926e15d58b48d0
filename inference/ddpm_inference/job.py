"""The Job: what is asked for, what decides the pixels of it, and the shards it falls into.

Two documents live here. A `Job` is a request; fields may be absent, and are then chosen. An `Identity` is the
answer: every value that decides a pixel, chosen and normalised, and nothing else. Its hash, the fingerprint, says
whether two runs make the same samples. Sample *i* depends on (fingerprint, i) alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ddpm_inference.errors import InvalidSpec

JOB_DOCUMENT_VERSION = 1
NOISE_VERSION = "philox4x32-10/1"

ModelName = Literal["Unet", "SimpleUnet"]
TimeEmbedding = Literal["step", "row"]
ScheduleName = Literal["linear", "cosine", "cosine_origin", "sigmoid"]
SamplerName = Literal["ddpm", "ddim", "dpmpp"]
Variance = Literal["large", "small"]
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
Execution = Literal["folded", "compiled"]
Format = Literal["npy", "png"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Downs = Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)]
TimeEmbDim = Annotated[int, Field(ge=2, le=4096)]
ImgSize = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=1, le=64)]
Timesteps = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]

DEFAULT_TIMESTEPS = 1000
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20}


class StrictModel(BaseModel):
    """A frozen document that refuses unknown fields, so that a typing error is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Reads the document from JSON.

        Raises:
            InvalidSpec: naming `where` it came from and every field that is wrong.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidSpec(f"{where} is not valid: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """One sentence for all that a ValidationError found: ``field.path: what is wrong``."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}" for item in error.errors()
    )


class ModelSpec(StrictModel):
    """The architecture of a network, complete: enough to build it and to know the shape of its images.

    Attributes:
        downs: channels of each level, outermost first.
        time_embedding: ``step`` encodes the timestep; ``row`` is the original's, which encodes the row of the
            batch instead, at batch size 1 always row 0.
        attention_norm: whether the Unet's attention block applies its BatchNorm; two versions of the original
            differ in that with the same keys.
    """

    name: ModelName
    downs: Downs
    time_emb_dim: TimeEmbDim
    img_size: ImgSize
    channels: Channels = 1
    time_embedding: TimeEmbedding
    attention_norm: bool = True

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
        return (self.channels, self.img_size, self.img_size)


class TrainedSchedule(StrictModel):
    """The noise schedule a checkpoint was trained with, from its metadata."""

    name: ScheduleName
    timesteps: Timesteps
    variance: Variance | None = None


class SamplerSpec(StrictModel):
    """The sampler, complete. Fields that the named sampler does not look at hold a fixed value, so that they
    cannot change the fingerprint.

    Attributes:
        timesteps: T of the trained schedule.
        steps: network evaluations a sample, at most T.
        eta: 0 is deterministic DDIM, 1 is DDPM-like; only ``ddim`` looks at it.
        variance: ``large`` (beta_t) or ``small`` (the posterior's); only ``ddpm`` looks at it.
    """

    name: SamplerName
    timesteps: Timesteps
    steps: Timesteps
    eta: Annotated[float, Field(ge=0, le=1)]
    schedule: ScheduleName
    variance: Variance | None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.steps > self.timesteps:
            raise ValueError(f"{self.steps} steps are more than the schedule's {self.timesteps} timesteps")
        return self


class Identity(StrictModel):
    """Everything that decides the pixels of sample i, and nothing else (N, workers and paths are not here).

    Bits are equal for equal identities on one CPU instruction set or one kind of GPU; elsewhere within the
    tolerance that docs/reproducibility.md states.
    """

    version: Literal[1] = 1
    model_sha256: Sha256
    model: ModelSpec
    sampler: SamplerSpec
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    precision: Precision
    batch_size: BatchSize
    execution: Execution
    device: Device
    noise: str = NOISE_VERSION
    torch: str

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the canonical JSON of this document."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Identity) -> list[str]:
        """What tells two identities apart, one ``field: ours, theirs`` a difference."""

        def flatten(value: object, path: str = "") -> dict[str, object]:
            if isinstance(value, dict):
                return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}").items()}
            return {path[1:]: value}

        mine, theirs = flatten(self.model_dump(mode="json")), flatten(other.model_dump(mode="json"))
        return [f"{key}: {mine[key]}, there {theirs[key]}" for key in mine if mine[key] != theirs[key]]


class ModelRequest(StrictModel):
    """The checkpoint, and its architecture where the checkpoint does not say it itself."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    sha256: Sha256 | None = None
    name: ModelName | None = None
    downs: Downs | None = None
    time_emb_dim: TimeEmbDim | None = None
    img_size: ImgSize | None = None
    channels: Channels | None = None
    time_embedding: TimeEmbedding | None = None


class SamplerRequest(StrictModel):
    """The sampler as asked for; what is absent comes from the checkpoint, then from the guide's defaults."""

    name: SamplerName = "ddpm"
    timesteps: Timesteps | None = None
    steps: Timesteps | None = None
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: ScheduleName | None = None
    variance: Variance | None = None


class OutputRequest(StrictModel):
    """Where the results go, and in which forms beside the shards."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    formats: Annotated[tuple[Format, ...], Field(max_length=2)] = ("npy", "png")
    overwrite: bool = False


class ResourceRequest(StrictModel):
    """What the run may take of the Ray cluster. None of it decides a pixel.

    Attributes:
        workers: at most this many actors; absent: as many as fit.
        num_gpus_per_task: GPUs an actor holds on device cuda; 0.25 puts four on one GPU.
        num_cpus_per_task: CPUs an actor holds, and its threads.
        startup_timeout: seconds until the first worker must be there, and until one must be there again if
            all nodes that had room for one are lost.
    """

    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    num_gpus_per_task: Annotated[float, Field(gt=0, le=16)] = 0.25
    num_cpus_per_task: Annotated[float, Field(gt=0, le=256)] = 1
    startup_timeout: Annotated[float, Field(gt=0, le=86_400)] = 60


class Job(StrictModel):
    """One request: N samples of this checkpoint, stored there. The operator hands it over as JSON."""

    version: Literal[1] = 1
    model: ModelRequest
    n_samples: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sampler: SamplerRequest = SamplerRequest()
    precision: Precision = "fp32"
    compile: bool = False
    batch_size: BatchSize | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output: OutputRequest
    resources: ResourceRequest = ResourceRequest()


def default_batch_size(model: ModelSpec, device: Device) -> int:
    """The batch size chosen where none is asked for: a power of two, from model and device alone.

    It must not depend on N, workers or memory at hand, because it is part of the identity. On CPU 32 rows of
    28x28 are within 7 % of the best rate measured; a GPU is bound by launches below several hundred rows.
    """
    pixels = model.img_size**2  # the image's own channels are few beside the network's
    most, budget = (32, 32 * 1024) if device == "cpu" else (512, 1024 * 1024)
    size = most
    while size > 1 and size * pixels > budget:
        size //= 2
    return size


def resolve_sampler(request: SamplerRequest, trained: TrainedSchedule | None) -> SamplerSpec:
    """Completes the sampler from the checkpoint's schedule and the defaults.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint, or asks for more steps than timesteps.
    """
    for flag, asked, known in (
        ("--timesteps", request.timesteps, trained and trained.timesteps),
        ("--schedule", request.schedule, trained and trained.name),
    ):
        if trained and asked is not None and asked != known:
            raise InvalidSpec(
                f"{flag} {asked} contradicts the checkpoint, which was trained with {known}",
                hint=f"leave {flag} out: the checkpoint's metadata says it",
            )
    timesteps = request.timesteps or (trained.timesteps if trained else DEFAULT_TIMESTEPS)
    variance = request.variance or (trained.variance if trained else None) or "large"
    try:
        return SamplerSpec(
            name=request.name,
            timesteps=timesteps,
            steps=request.steps or min(DEFAULT_STEPS[request.name] or timesteps, timesteps),
            eta=request.eta if request.name == "ddim" else 0.0,
            schedule=request.schedule or (trained.name if trained else "linear"),
            variance=variance if request.name == "ddpm" else None,
        )
    except ValidationError as error:
        raise InvalidSpec(f"the sampler is not valid: {explain(error)}", hint="lower --steps") from error


class Shard(StrictModel):
    """Samples `first` to `last`, both included: one batch, the last of a job perhaps short."""

    first: Annotated[int, Field(ge=0)]
    last: Annotated[int, Field(ge=0)]

    @field_validator("last")
    @classmethod
    def _ordered(cls, last: int, info: object) -> int:
        first = getattr(info, "data", {}).get("first", 0)
        if last < first:
            raise ValueError(f"the range {first}-{last} is empty")
        return last

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """File name below ``shards/``; sorts by range."""
        return f"{self.first:09d}-{self.last:09d}.npz"

    @classmethod
    def from_name(cls, name: str) -> Shard | None:
        """The shard a file name stands for, or None if it is no shard's."""
        match = re.fullmatch(r"(\d{9,})-(\d{9,})\.npz", name)
        if match is None or int(match[2]) < int(match[1]):
            return None
        return cls(first=int(match[1]), last=int(match[2]))


def shard_at(index: int, batch_size: int, n_samples: int) -> Shard:
    """The `index`-th shard of the batch grid, cut at N."""
    first = index * batch_size
    return Shard(first=first, last=min(first + batch_size, n_samples) - 1)


def shard_count(n_samples: int, batch_size: int) -> int:
    return -(-n_samples // batch_size)


def shards_of(n_samples: int, batch_size: int) -> Iterator[Shard]:
    """The shards of samples 0 to N-1 on the batch grid, in order."""
    return (shard_at(index, batch_size, n_samples) for index in range(shard_count(n_samples, batch_size)))
