"""The documents that describe a run: the Job that requests it, the Identity of its samples, and its shards.

A `Job` is a request: absent fields are filled in later. `plan` resolves it to an `Identity`: every value that decides a
pixel, chosen and normalised, and nothing else. The file ``job.json`` of a store holds the Identity, not the Job. Two
runs make the same samples if the hashes of their identities, the fingerprints, are equal. Sample *i* depends on
(fingerprint, i) alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ddpm_inference.errors import InvalidSpec

# Layout of the Job document. Not part of the fingerprint.
JOB_DOCUMENT_VERSION: Final = 1
# Part of the fingerprint: with another value no run resumes the samples that were stored before.
IDENTITY_VERSION: Final = 1
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

FILE_OF_FORMAT: dict[Format, str] = {"npy": "samples.npy", "png": "grid.png"}
"""The file that a run writes for each output format."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Downs = Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)]
TimeEmbDim = Annotated[int, Field(ge=2, le=4096)]
ImgSize = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=1, le=64)]
Timesteps = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]

DEFAULT_TIMESTEPS = 1000
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20}


class StrictModel(BaseModel):
    """A frozen document that rejects unknown fields, so that a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Self:
        """Parses and validates the document from JSON.

        Args:
            where: names the source of the text in the error message.

        Raises:
            InvalidSpec: naming every field that is invalid.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InvalidSpec(f"{where} is not valid: {format_validation_error(error)}") from error


def format_validation_error(error: ValidationError) -> str:
    """Returns all errors of a validation on one line, each as ``field.path: message``."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'document'}: {item['msg']}" for item in error.errors()
    )


class ModelSpec(StrictModel):
    """The complete architecture of a network: enough to build it and to know the shape of its images.

    Attributes:
        downs: channels of each level, outermost first.
        time_embedding: ``step`` encodes the timestep. ``row`` encodes the row of the batch instead, as the original
            code does, where the batch size is 1 and the row always 0.
        attention_norm: whether the Unet's attention block applies its BatchNorm. Two versions of the original code
            differ in this, with the same keys in the state dict.
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
    """The noise schedule that a checkpoint was trained with, from its metadata."""

    name: ScheduleName
    timesteps: Timesteps
    variance: Variance | None = None


class SamplerSpec(StrictModel):
    """The complete sampler configuration. Fields that the named sampler does not use have a fixed value, so that they
    cannot change the fingerprint.

    Attributes:
        timesteps: T of the trained schedule.
        steps: network evaluations per sample, at most T.
        eta: 0 is deterministic DDIM, 1 is DDPM-like; only ``ddim`` uses it.
        variance: ``large`` (beta_t) or ``small`` (that of the posterior); only ``ddpm`` uses it.
    """

    name: SamplerName
    timesteps: Timesteps
    steps: Steps
    eta: Annotated[float, Field(ge=0, le=1)]
    schedule: ScheduleName
    variance: Variance | None

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.steps > self.timesteps:
            raise ValueError(f"{self.steps} steps are more than the schedule's {self.timesteps} timesteps")
        return self


class Identity(StrictModel):
    """Everything that decides the pixels of sample i, and nothing else: not N, not the workers, not the paths.

    Equal identities give equal bits on one CPU instruction set or one GPU model; on others they agree within the
    tolerance in docs/reproducibility.md.
    """

    version: Literal[1] = IDENTITY_VERSION
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
        """sha256, in hex, of the canonical JSON of this document."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Identity) -> list[str]:
        """Returns the fields that differ, each as ``field: own value, there other's value``."""

        def flatten(value: object, path: str = "") -> dict[str, object]:
            if isinstance(value, dict):
                return {k: v for key, item in value.items() for k, v in flatten(item, f"{path}.{key}").items()}
            return {path[1:]: value}

        own, others = flatten(self.model_dump(mode="json")), flatten(other.model_dump(mode="json"))
        return [f"{key}: {own[key]}, there {others[key]}" for key in own if own[key] != others[key]]


class ModelRequest(StrictModel):
    """The checkpoint, and its architecture if the checkpoint has no metadata."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    sha256: Sha256 | None = None
    name: ModelName | None = None
    downs: Downs | None = None
    time_emb_dim: TimeEmbDim | None = None
    img_size: ImgSize | None = None
    channels: Channels | None = None
    time_embedding: TimeEmbedding | None = None


class SamplerRequest(StrictModel):
    """The requested sampler. Absent fields come from the checkpoint, then from the guide's defaults."""

    name: SamplerName = "ddpm"
    timesteps: Timesteps | None = None
    steps: Steps | None = None
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: ScheduleName | None = None
    variance: Variance | None = None


class OutputRequest(StrictModel):
    """Where the samples are stored, and which files are written besides the shards."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    formats: Annotated[tuple[Format, ...], Field(max_length=2)] = ("npy", "png")
    overwrite: bool = False


class ResourceRequest(StrictModel):
    """The resources of the Ray cluster that the run may use. None of them decides a pixel.

    Attributes:
        workers: maximum number of actors; if absent, as many as fit.
        num_gpus_per_task: GPUs that an actor reserves on device cuda; 0.25 puts four on one GPU.
        num_cpus_per_task: CPUs that an actor reserves, and its threads.
        startup_timeout: seconds to wait for the first worker, and for another one after all nodes that had room for
            a worker are lost.
    """

    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    num_gpus_per_task: Annotated[float, Field(gt=0, le=16)] = 0.25
    num_cpus_per_task: Annotated[float, Field(gt=0, le=256)] = 1
    startup_timeout: Annotated[float, Field(gt=0, le=86_400)] = 60


class Job(StrictModel):
    """The request for N samples of a checkpoint. The operator passes it as JSON in an environment variable."""

    version: Literal[1] = JOB_DOCUMENT_VERSION
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
    """Returns the batch size for a job that gives none: a power of two, from model and device alone.

    It must not depend on N, the workers or the free memory, because it is part of the identity. On CPU, 32 rows of
    28x28 are within 7 % of the best measured rate; a GPU is limited by kernel launches below several hundred rows.
    """
    pixels = model.img_size**2  # without the image's channels, which are few compared to the network's
    size, max_pixels = (32, 32 * 1024) if device == "cpu" else (512, 1024 * 1024)
    while size > 1 and size * pixels > max_pixels:
        size //= 2
    return size


def resolve_sampler(request: SamplerRequest, trained: TrainedSchedule | None) -> SamplerSpec:
    """Completes the sampler from the checkpoint's schedule and the defaults.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint, or has more steps than timesteps.
    """
    for flag, requested, known in (
        ("--timesteps", request.timesteps, trained and trained.timesteps),
        ("--schedule", request.schedule, trained and trained.name),
    ):
        if trained and requested is not None and requested != known:
            raise InvalidSpec(
                f"{flag} {requested} contradicts the checkpoint, which was trained with {known}",
                hint=f"omit {flag}: it is in the checkpoint's metadata",
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
        raise InvalidSpec(
            f"the sampler is not valid: {format_validation_error(error)}", hint="lower --steps"
        ) from error


class Shard(StrictModel):
    """Samples `first` to `last`, both included: one batch, or less at the end of a job."""

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
        """The number of samples."""
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """File name below ``shards/``; names sort by range."""
        return f"{self.first:09d}-{self.last:09d}.npz"

    @classmethod
    def from_name(cls, name: str) -> Shard | None:
        """Returns the shard with this file name, or None if it is not the name of a shard."""
        match = re.fullmatch(r"(\d{9,})-(\d{9,})\.npz", name)
        if match is None or int(match[2]) < int(match[1]):
            return None
        return cls(first=int(match[1]), last=int(match[2]))


def shard_at(index: int, batch_size: int, n_samples: int) -> Shard:
    """Returns the `index`-th shard, which begins at a multiple of the batch size; cut off at N."""
    first = index * batch_size
    return Shard(first=first, last=min(first + batch_size, n_samples) - 1)


def shard_count(n_samples: int, batch_size: int) -> int:
    """Returns the number of shards of N samples."""
    return -(-n_samples // batch_size)


def shards_of(n_samples: int, batch_size: int) -> Iterator[Shard]:
    """Yields the shards of samples 0 to N-1 in order; each begins at a multiple of the batch size."""
    return (shard_at(index, batch_size, n_samples) for index in range(shard_count(n_samples, batch_size)))
