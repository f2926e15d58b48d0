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
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

# Names with `as` are exported again: this module is where other modules find the documents and their types.
from ddpm_inference.diffusion_spec import (
    WITH_BETA_RANGE,
    Beta,
    CurveName,
    GuideSchedule,
    Prediction,
    SamplingSettings,
    TrainedBetas,
    diffusion_for,
)
from ddpm_inference.diffusion_spec import Diffusion as Diffusion
from ddpm_inference.diffusion_spec import SamplerName as SamplerName
from ddpm_inference.diffusion_spec import ScheduleName as ScheduleName
from ddpm_inference.diffusion_spec import Timesteps as Timesteps
from ddpm_inference.diffusion_spec import TrainedDiffusion as TrainedDiffusion
from ddpm_inference.diffusion_spec import Variance as Variance
from ddpm_inference.documents import CompactModel as CompactModel
from ddpm_inference.documents import Sha256 as Sha256
from ddpm_inference.documents import StrictModel as StrictModel
from ddpm_inference.documents import format_validation_error as format_validation_error
from ddpm_inference.documents import validation_message as validation_message
from ddpm_inference.errors import InvalidSpec, ModelRejected
from ddpm_inference.network_spec import NAME_PATTERN, AnyNetworkSpec, Channels, Downs, ImgSize, TimeEmbDim
from ddpm_inference.network_spec import ModelName as ModelName
from ddpm_inference.network_spec import ModelSpec as ModelSpec
from ddpm_inference.network_spec import NetworkSpec as NetworkSpec
from ddpm_inference.network_spec import TimeEmbedding as TimeEmbedding
from ddpm_inference.network_spec import UNet2DSpec as UNet2DSpec

# Layout of the Job document. Not part of the fingerprint.
JOB_DOCUMENT_VERSION: Final = 1
# Of new identities, and part of their fingerprint. A stored identity of an older version is kept as it is.
IDENTITY_VERSION: Final = 2
NOISE_VERSION = "philox4x32-10/1"

Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
Execution = Literal["folded", "compiled"]
Format = Literal["npy", "png"]

FILE_OF_FORMAT: dict[Format, str] = {"npy": "samples.npy", "png": "grid.png"}
"""The file that a run writes for each output format."""

Steps = Annotated[int, Field(ge=1, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Threads = Annotated[int, Field(ge=1, le=256)]
NetworkName = Annotated[str, Field(pattern=NAME_PATTERN)]
HardwareName = Annotated[str, Field(min_length=1, max_length=80)]

DEFAULT_TIMESTEPS = 1000
SAMPLER_OF_FIELD: dict[str, SamplerName] = {"eta": "ddim", "variance": "ddpm"}
"""The only sampler that uses a field of `SamplerRequest`."""
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20, "heun": 20, "unipc": 20}
"""None: all timesteps."""


class TrainedSchedule(StrictModel):
    """The noise schedule that a checkpoint was trained with, from its metadata."""

    name: ScheduleName
    timesteps: Timesteps
    variance: Variance | None = None


class SamplerSpec(CompactModel):
    """The complete sampler configuration. Fields that the named sampler does not use have a fixed value, so that they
    cannot change the fingerprint.

    Attributes:
        timesteps: T of the trained schedule.
        steps: of the chain, at most T. Each is one network evaluation; of ``heun`` each but the last is two.
        eta: 0 is deterministic DDIM, 1 is DDPM-like; only ``ddim`` uses it.
        variance: ``large`` (beta_t), ``small`` (that of the posterior) or ``learned_range`` (predicted, between the
            two); only ``ddpm`` uses it.
        diffusion: the settings of a diffusers scheduler; None: those of the guide's code, which has none.
    """

    omitted_at_default: ClassVar[frozenset[str]] = frozenset({"diffusion"})

    name: SamplerName
    timesteps: Timesteps
    steps: Steps
    eta: Annotated[float, Field(ge=0, le=1)]
    schedule: CurveName
    variance: Variance | None
    diffusion: Diffusion | None = None

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
    model: AnyNetworkSpec
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
        elif name == "files" and isinstance(document, ModelSource):
            leaves |= {f"{path}files.{file.name}": file.sha256 for file in document.files}
        elif value is not None:
            leaves[f"{path}{name}"] = list(value) if isinstance(value, tuple) else value
    return leaves


class ModelRequest(StrictModel):
    """The checkpoint, and its architecture if the checkpoint has no metadata."""

    uri: Annotated[str, Field(min_length=1, max_length=2048)]
    sha256: Sha256 | None = None
    name: NetworkName | None = None
    downs: Downs | None = None
    time_emb_dim: TimeEmbDim | None = None
    img_size: ImgSize | None = None
    channels: Channels | None = None
    time_embedding: TimeEmbedding | None = None
    attention_norm: bool | None = None


class SamplerRequest(SamplingSettings):
    """The requested sampler. Absent fields come from the checkpoint, then from the guide's defaults.

    The fields after `variance`, and those of `SamplingSettings`, are diffusers'. With any of them a network of the
    guide is sampled as diffusers' scheduler would, with the spacing and the clamp that its own samplers have.

    Attributes:
        name: if absent, that of the checkpoint's pipeline or scheduler, else ``ddpm``.
        eta: of ``ddim``; 0 if absent.
    """

    omitted_at_default: ClassVar[frozenset[str]] = SamplingSettings.omitted_at_default | {
        "prediction_type",
        "beta_start",
        "beta_end",
        "trained_betas",
        "rescale_betas_zero_snr",
    }

    name: SamplerName | None = None
    timesteps: Timesteps | None = None
    steps: Steps | None = None
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    schedule: ScheduleName | None = None
    variance: Variance | None = None
    prediction_type: Prediction | None = None
    beta_start: Beta | None = None
    beta_end: Beta | None = None
    trained_betas: TrainedBetas | None = None
    rescale_betas_zero_snr: bool | None = None

    @property
    def uses_diffusion(self) -> bool:
        """Whether it has a field that the guide's samplers do not have."""
        return (
            self.name in ("heun", "unipc")
            or self.variance == "learned_range"
            or (self.schedule is not None and self.schedule not in get_args(GuideSchedule))
            or any(getattr(self, field) is not None for field in self.omitted_at_default)
        )


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


class Cost(NamedTuple):
    """What one evaluation of a network costs, for one sample.

    Attributes:
        flops: floating-point operations, where a multiplication with its addition counts as two.
        activation_bytes: memory of the activations at the peak, in fp32.
    """

    flops: int
    activation_bytes: int


class _Budget(NamedTuple):
    """Limits of a batch: the first that is reached decides."""

    rows: int
    flops: int
    activation_bytes: int


_BUDGETS: Final[dict[Device, _Budget]] = {
    # A core computes 50 to 100 GFLOP/s, so a call takes a few seconds at most, and a shard can be tried again.
    "cpu": _Budget(rows=32, flops=250 * 10**9, activation_bytes=128 << 20),
    # A quarter of a GPU of 16 GiB, which up to four workers share.
    "cuda": _Budget(rows=512, flops=8 * 10**12, activation_bytes=4 << 30),
}


def default_batch_size(cost: Cost, device: Device) -> int:
    """Returns the batch size for a job that gives none: a power of two, from network and device alone.

    It must not depend on N, the workers or the free memory, because it is part of the identity. On CPU, 32 rows of
    28x28 are within 7 % of the best measured rate; a GPU is limited by kernel launches below several hundred rows.
    """
    budget = _BUDGETS[device]
    size = budget.rows
    while size > 1 and (size * cost.flops > budget.flops or size * cost.activation_bytes > budget.activation_bytes):
        size //= 2
    return size


def resolve_sampler(
    request: SamplerRequest,
    trained: TrainedSchedule | None,
    diffusion: TrainedDiffusion | None = None,
    *,
    learned_variance: bool = False,
) -> SamplerSpec:
    """Completes the sampler from what the checkpoint says of its training, and the defaults.

    Args:
        trained: the schedule in the metadata of a network of the guide.
        diffusion: what the files of a pipeline say; it comes before `trained`.
        learned_variance: whether the network predicts a variance, too.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint, has more steps than timesteps, or a field that its
            sampler does not use; or if there is no sampler for the pipeline's scheduler.
        ModelRejected: if the network's channels do not fit the variance of the pipeline.
    """
    if diffusion is None and (request.uses_diffusion or learned_variance):
        diffusion = _guide_diffusion(request, trained)
    if diffusion is not None:
        return _resolve_diffusion(request, diffusion, learned_variance=learned_variance)
    for flag, requested, known in (
        ("--timesteps", request.timesteps, trained and trained.timesteps),
        ("--schedule", request.schedule, trained and trained.name),
    ):
        if trained and requested is not None and requested != known:
            raise _contradiction(flag, requested, known)
    name = request.name or "ddpm"
    timesteps = request.timesteps or (trained.timesteps if trained else DEFAULT_TIMESTEPS)
    variance = request.variance or (trained.variance if trained else None) or "large"
    return _sampler_spec(
        name=name,
        timesteps=timesteps,
        steps=request.steps or min(DEFAULT_STEPS[name] or timesteps, timesteps),
        eta=request.eta if name == "ddim" else 0.0,
        schedule=request.schedule or (trained.name if trained else "linear"),
        variance=variance if name == "ddpm" else None,
    )


def request_of(spec: SamplerSpec) -> SamplerRequest:
    """Returns the request that resolves to `spec` again, with the same checkpoint."""
    fields: dict[str, object] = spec.model_dump(include={"name", "timesteps", "steps", "schedule"})
    # eta and variance have fixed values where the sampler does not use them, and are not to be asked for.
    if spec.name == "ddim":
        fields["eta"] = spec.eta
    if spec.name == "ddpm":
        fields["variance"] = spec.variance
    diffusion = spec.diffusion
    if diffusion is not None:
        fields |= {
            "prediction_type": diffusion.prediction,
            "beta_start": diffusion.beta_start,
            "beta_end": diffusion.beta_end,
            "trained_betas": diffusion.trained_betas,
            "rescale_betas_zero_snr": diffusion.zero_snr,
            "clip_sample": diffusion.clip_range is not None,
            "clip_sample_range": diffusion.clip_range,
            "timestep_spacing": diffusion.spacing,
            "steps_offset": diffusion.steps_offset,
        }
        if diffusion.trained_betas is not None:
            del fields["schedule"]
        if spec.name == "ddim":
            fields["set_alpha_to_one"] = diffusion.set_alpha_to_one
        if spec.name != "heun":
            fields["thresholding"] = diffusion.thresholding is not None
        if diffusion.thresholding is not None:
            fields["dynamic_thresholding_ratio"] = diffusion.thresholding.ratio
            fields["sample_max_value"] = diffusion.thresholding.max_value
    return SamplerRequest.model_validate({name: value for name, value in fields.items() if value is not None})


def _resolve_diffusion(request: SamplerRequest, diffusion: TrainedDiffusion, *, learned_variance: bool) -> SamplerSpec:
    diffusion = _with_training(request, diffusion)
    name = request.name or diffusion.sampler
    if name is None:
        raise InvalidSpec(
            f"the checkpoint's scheduler is {diffusion.scheduler}, for which there is no sampler",
            hint="give --sampler unipc or dpmpp for few steps, ddim, or ddpm for all: they use the same betas",
        )
    _refuse_settings(request, name)
    if diffusion.zero_snr and diffusion.prediction == "epsilon" and name in ("ddpm", "ddim"):
        raise ModelRejected(
            "its scheduler has rescale_betas_zero_snr with prediction_type epsilon: at the last timestep, which is "
            "pure noise, x_0 cannot be computed from the predicted noise",
            hint="only networks that predict v or the sample can be trained so; --sampler dpmpp starts just below it",
        )
    variance: Variance | None = None
    if name == "ddpm":
        variance = _variance(request.variance, diffusion, learned_variance=learned_variance)
    timesteps = diffusion.timesteps
    default = None if diffusion.all_steps and name == "ddim" else DEFAULT_STEPS[name]
    return _sampler_spec(
        name=name,
        timesteps=timesteps,
        steps=request.steps or min(default or timesteps, timesteps),
        eta=request.eta if name == "ddim" else 0.0,
        schedule=diffusion.schedule,
        variance=variance,
        diffusion=diffusion_for(name, diffusion, request),
    )


def _guide_diffusion(request: SamplerRequest, trained: TrainedSchedule | None) -> TrainedDiffusion:
    """Returns the diffusion of a network of the guide: its schedule, its spacing and its clamp."""
    schedule: CurveName = trained.name if trained else request.schedule or "linear"
    if request.trained_betas is not None:
        schedule = "trained"
    return TrainedDiffusion(
        # Metadata are facts, as a scheduler's file is: a request must not contradict them.
        scheduler="the checkpoint's metadata" if trained else None,
        pipeline=None,
        timesteps=trained.timesteps if trained else request.timesteps or DEFAULT_TIMESTEPS,
        schedule=schedule,
        variance=(trained.variance if trained else None) or "large",
        settings=SamplingSettings(clip_sample=True, timestep_spacing="trailing"),
    )


def _with_training(request: SamplerRequest, diffusion: TrainedDiffusion) -> TrainedDiffusion:
    """Adds what the request says of the training, where the checkpoint does not say it.

    Raises:
        InvalidSpec: if the request contradicts the checkpoint.
    """
    fields: dict[str, object] = {
        "timesteps": request.timesteps,
        "schedule": "trained" if request.trained_betas is not None else request.schedule,
        "prediction": request.prediction_type,
        "beta_start": request.beta_start,
        "beta_end": request.beta_end,
        "trained_betas": request.trained_betas,
        "zero_snr": request.rescale_betas_zero_snr,
    }
    flags = {"prediction": "prediction_type", "zero_snr": "rescale_betas_zero_snr"}
    given = {field: value for field, value in fields.items() if value is not None}
    if diffusion.scheduler is not None:
        for field, value in given.items():
            known = getattr(diffusion, field)
            if value != known:
                raise _contradiction(f"--{flags.get(field, field)}", value, known)
        return diffusion
    if request.trained_betas is not None and request.timesteps is None:
        given["timesteps"] = len(request.trained_betas)
    schedule = given.get("schedule", diffusion.schedule)
    for field in ("beta_start", "beta_end"):
        if field in given and schedule not in WITH_BETA_RANGE:
            raise InvalidSpec(f"--{field} has no effect with the schedule {schedule}", hint=f"omit --{field}")
    try:
        return TrainedDiffusion.model_validate({**diffusion.model_dump(), **given})
    except ValidationError as error:
        raise InvalidSpec(f"the sampler is not valid: {format_validation_error(error)}") from error


def _variance(requested: Variance | None, diffusion: TrainedDiffusion, *, learned_variance: bool) -> Variance:
    """Returns the variance of ``ddpm``; diffusers' DDPMScheduler has ``small`` by default.

    Raises:
        InvalidSpec, ModelRejected: if it is learned and the network does not predict it, or the other way round.
    """
    stored = diffusion.variance
    if learned_variance and requested is None and stored in ("large", "small"):
        raise ModelRejected(
            "its network predicts a variance besides the mean (twice the channels of an image), but its scheduler has "
            f"the variance_type fixed_{stored}",
            hint=f"give --variance learned_range, or --variance {stored} to ignore the predicted variance",
        )
    variance = requested or stored or ("learned_range" if learned_variance else "small")
    if variance == "learned_range" and not learned_variance:
        if requested is not None:
            raise InvalidSpec(
                "--variance learned_range needs a network that predicts a variance, and this one has as many output "
                "channels as an image",
                hint="omit --variance",
            )
        raise ModelRejected(
            "its scheduler has the variance_type learned_range, but its network predicts no variance: it has as many "
            "output channels as an image, not twice as many",
            hint="give --variance small or large if the configuration is wrong",
        )
    return variance


def _refuse_settings(request: SamplerRequest, name: SamplerName) -> None:
    """Refuses a setting that the sampler does not use."""
    if request.set_alpha_to_one is not None and name != "ddim":
        raise InvalidSpec(
            f"--set_alpha_to_one has no effect with the sampler {name}: it is of ddim", hint="omit --set_alpha_to_one"
        )
    if request.thresholding and name == "heun":
        raise InvalidSpec("--thresholding has no effect with the sampler heun", hint="omit it, or use another sampler")


def _contradiction(flag: str, requested: object, known: object) -> InvalidSpec:
    return InvalidSpec(
        f"{flag} {requested} contradicts the checkpoint, which was trained with {known}",
        hint=f"omit {flag}: it is in the checkpoint's metadata",
    )


def _sampler_spec(**fields: object) -> SamplerSpec:
    try:
        return SamplerSpec.model_validate(fields)
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
