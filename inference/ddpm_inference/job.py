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
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from ddpm_inference.errors import InvalidSpec

# Layout of the Job document. Not part of the fingerprint.
JOB_DOCUMENT_VERSION: Final = 1
# Of new identities, and part of their fingerprint. A stored identity of an older version is kept as it is.
IDENTITY_VERSION: Final = 2
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

SHA256_PATTERN = "^[0-9a-f]{64}$"
Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]
Downs = Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)]
TimeEmbDim = Annotated[int, Field(ge=2, le=4096)]
ImgSize = Annotated[int, Field(ge=1, le=1024)]
Channels = Annotated[int, Field(ge=1, le=64)]
Timesteps = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Threads = Annotated[int, Field(ge=1, le=256)]
HardwareName = Annotated[str, Field(min_length=1, max_length=80)]

DEFAULT_TIMESTEPS = 1000
SAMPLER_OF_FIELD: dict[str, SamplerName] = {"eta": "ddim", "variance": "ddpm"}
"""The only sampler that uses a field of `SamplerRequest`."""
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


class CompactModel(StrictModel):
    """A document whose newer fields are absent from its JSON where they have their default.

    A field that is added later therefore changes neither stored documents nor fingerprints that do not use it.

    Attributes:
        omitted_at_default: the names of these fields.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _omit_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = serialize(self)
        for name in self.omitted_at_default:
            if getattr(self, name) == type(self).model_fields[name].default:
                document.pop(name, None)
        return document


def format_validation_error(error: ValidationError) -> str:
    """Returns all errors of a validation on one line, each as ``field.path: message``."""
    return "; ".join(validation_message(item, ".".join(str(part) for part in item["loc"])) for item in error.errors())


def validation_message(item: ErrorDetails, field: str) -> str:
    """Returns the message of one validation error.

    Args:
        field: the name of the field or its flag; "" for an error of the whole document.
    """
    match item["type"]:
        case "value_error":
            problem = f": {item['ctx']['error']}"
        case "missing":
            problem = " is missing"
        case "extra_forbidden":
            problem = " is not a known field"
        case "string_too_short" if item["ctx"]["min_length"] == 1:
            problem = " must not be empty"
        case "string_pattern_mismatch" if item["ctx"]["pattern"] == SHA256_PATTERN:
            problem = " must be 64 characters of 0-9 and a-f, as printed by sha256sum"
        case _:
            problem = re.sub("^: [A-Z][a-z]+ should ", " must ", f": {item['msg']}")
    return f"{field}{problem}" if field else problem.lstrip(": ")


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
            known = f"{self.timesteps} timestep{'' if self.timesteps == 1 else 's'}"
            raise ValueError(f"{self.steps} steps are more than the schedule's {known}")
        return self


class Hardware(CompactModel):
    """What decides which kernels compute a sample, of one machine. A field is absent where it decides nothing.

    `hardware.find_hardware` reads it.

    Attributes:
        cpu_vendor: as in ``/proc/cpuinfo``; on ARM the codes of implementer and part.
        aten: the CPU capability of torch's own kernels, as ``torch.backends.cpu.get_cpu_capability`` names it.
        onednn: the instruction set of oneDNN, which computes the convolutions.
        mkl: the instruction set to which the environment limits MKL.
        gpu: name of the GPU model.
        compute_capability: of the GPU, such as ``9.0``.
        cudnn, cublas: versions of the libraries.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset(
        {"cpu_vendor", "aten", "onednn", "mkl", "gpu", "compute_capability", "cudnn", "cublas"}
    )

    cpu_vendor: HardwareName | None = None
    aten: HardwareName | None = None
    onednn: HardwareName | None = None
    mkl: HardwareName | None = None
    gpu: HardwareName | None = None
    compute_capability: HardwareName | None = None
    cudnn: HardwareName | None = None
    cublas: HardwareName | None = None

    @property
    def description(self) -> str:
        """The fields that are known, for messages."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump().items()) or "unknown hardware"


class ModelFile(StrictModel):
    """A file of a checkpoint that was read.

    Attributes:
        name: path below the checkpoint's URI.
    """

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class ModelSource(CompactModel):
    """Where a checkpoint of several files came from. It decides no pixel: `Identity.model_sha256` covers the files.

    Attributes:
        uri: as it was requested, of an ``hf://`` model only: a later run of the same URI uses the same commit.
        revision: the commit of its repository.
        files: every file that was read, sorted by name.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"uri", "revision"})

    uri: str | None = None
    revision: str | None = None
    files: tuple[ModelFile, ...]

    @property
    def sha256(self) -> str:
        """sha256, in hex, over the lines ``name sha256`` of the files."""
        lines = "".join(f"{file.name} {file.sha256}\n" for file in sorted(self.files, key=lambda file: file.name))
        return hashlib.sha256(lines.encode()).hexdigest()


class Identity(CompactModel):
    """Everything that decides the pixels of sample i, and nothing else: not N, not the workers, not the paths.

    Equal identities give equal bits. The exception is a run that was allowed to mix hardware: then the manifest says
    which shards other hardware drew.

    Attributes:
        threads: CPU threads of each worker on device cpu; 1 on cuda, where they decide nothing.
        hardware: of the workers; None if it is unknown. Version 1 has neither of the two.
        source: the files of a checkpoint that is a folder; None for a single file. Not part of the fingerprint.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"threads", "hardware", "source"})

    version: Literal[1, 2] = IDENTITY_VERSION
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
    threads: Threads = 1
    hardware: Hardware | None = None
    source: ModelSource | None = None

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if self.version == 1 and (self.threads != 1 or self.hardware is not None):
            raise ValueError("version 1 has neither threads nor hardware")
        return self

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of the canonical JSON of this document without `source`."""
        canonical = json.dumps(self.model_dump(mode="json", exclude={"source"}), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Identity) -> list[str]:
        """Returns the fields that differ, each as ``field: own value, there other's value``."""
        own, others = _leaves(self), _leaves(other)
        return [
            f"{key}: {own.get(key, 'unknown')}, there {others.get(key, 'unknown')}"
            for key in dict.fromkeys((*own, *others))
            if own.get(key) != others.get(key)
        ]


def _leaves(document: StrictModel, path: str = "") -> dict[str, object]:
    """Returns dotted path -> value of all fields, of nested documents too, except those that are None."""
    leaves: dict[str, object] = {}
    for name in type(document).model_fields:
        value = getattr(document, name)
        if isinstance(value, StrictModel):
            leaves |= _leaves(value, f"{path}{name}.")
        elif value is not None:
            leaves[f"{path}{name}"] = list(value) if isinstance(value, tuple) else value
    return leaves


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
    attention_norm: bool | None = None


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
    """The resources of the Ray cluster that the run may use. Of them only `threads` decides a pixel.

    Attributes:
        workers: maximum number of actors; if absent, as many as fit.
        num_gpus_per_task: GPUs that an actor reserves on device cuda; 0.25 puts four on one GPU.
        num_cpus_per_task: CPUs that an actor reserves, and its threads.
        startup_timeout: seconds to wait for the first worker, and for another one after all nodes that had room for
            a worker are lost. A worker that has its resources may take twice as long to build its network.
        shard_timeout: seconds that a shard may take on a worker; if absent, it is compared with the others.
        allow_mixed_hardware: whether to continue a stored run on other hardware, and to use workers of several kinds.
            The samples then agree within rounding only; the manifest says which shards are which.
    """

    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    num_gpus_per_task: Annotated[float, Field(gt=0, le=16)] = 0.25
    num_cpus_per_task: Annotated[float, Field(gt=0, le=256)] = 1
    startup_timeout: Annotated[float, Field(gt=0, le=86_400)] = 60
    shard_timeout: Annotated[float, Field(gt=0, le=604_800)] | None = None
    allow_mixed_hardware: bool = False

    @property
    def threads(self) -> int:
        """CPU threads of one actor: whole CPUs, at least 1."""
        return max(1, int(self.num_cpus_per_task))


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
