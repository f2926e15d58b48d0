"""The spec of a DDPMSampling: model, sampler, resources, output and lifecycle options."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from ddpm_operator.api.model import Model
from ddpm_operator.api.names import LabelValue, ObjectName, ResourceName
from ddpm_operator.api.pod_overrides import LocalReference, PodOverrides
from ddpm_operator.api.quantity import Quantity
from ddpm_operator.api.rules import Matches, Rule, rule
from ddpm_operator.api.uri import ModelUri, OutputUri

ModelName = Literal["Unet", "SimpleUnet"]
TimeEmbedding = Literal["step", "row"]
ScheduleName = Literal[
    "linear",
    "cosine",
    "cosine_origin",
    "sigmoid",
    "scaled_linear",
    "squaredcos_cap_v2",
    "sigmoid_betas",
    "laplace",
    "exp",
]
SamplerName = Literal["ddpm", "ddim", "dpmpp", "heun", "unipc"]
Variance = Literal["large", "small", "learned_range"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["leading", "trailing", "linspace"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cuda", "cpu"]
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]
Format = Literal["npy", "png"]

Sha256 = Annotated[
    str,
    Field(min_length=64, max_length=64),
    Matches("a sha256 must consist of 64 characters of 0-9 and a-f, as printed by sha256sum", "[0-9a-f]{64}"),
]
Timesteps = Annotated[int, Field(ge=1, le=100_000)]
Cpu = Annotated[str, Quantity("cpu must be a quantity from 100m to 1024, such as 2 or 500m", "100m", "1024")]
Memory = Annotated[
    str, Quantity("memory must be a quantity from 1Gi, the minimum for Ray and torch, to 64Ti", "1Gi", "64Ti")
]
Size = Annotated[str, Quantity("the size of a claim must be a quantity from 1Mi to 1Pi, such as 10Gi", "1Mi", "1Pi")]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Fraction = Annotated[
    str,
    Field(min_length=1, max_length=12),
    Matches('it must be a decimal from 0 to 1 in quotes, such as "0.02"', r"0(?:\.[0-9]{1,10})?|1(?:\.0{1,10})?"),
]
Decimal = Annotated[
    str,
    Field(min_length=1, max_length=12),
    Matches('it must be a positive decimal in quotes, such as "1.5"', r"[0-9]{1,6}(?:\.[0-9]{1,5})?"),
]


class Footprint(Model):
    """What a network takes. It sizes the plan and the claims, and decides no sample that batchSize does not."""

    height: Annotated[int, Field(ge=1, le=1024)] = Field(description="The height of an image in pixels.")
    width: Annotated[int, Field(ge=1, le=1024)] = Field(description="The width of an image in pixels.")
    channels: Annotated[int, Field(ge=1, le=64)] = Field(description="The number of channels of an image.")
    flops: Annotated[int, Field(ge=1, le=10**18)] = Field(
        description="Floating-point operations of one network evaluation for one sample."
    )
    activation_bytes: Annotated[int, Field(ge=1, le=2**50)] = Field(
        description="Memory of the activations of one sample at the peak of an evaluation, in fp32."
    )
    weight_bytes: Annotated[int, Field(ge=1, le=2**50)] = Field(description="Memory of the weights, in fp32.")


class Checkpoint(Model):
    """The trained network."""

    uri: ModelUri = Field(
        description="The location of the checkpoint: builtin://name (part of the image), pvc://claim/path, "
        "s3://bucket/key, https://host/path or hf://org/name[@revision][/subfolder]. It is a file, or the folder of a "
        "diffusers pipeline; the URL of an https folder ends in a slash. https is read without authentication, so pin "
        "the file with sha256. gs://bucket/key is reserved for future use."
    )
    sha256: Sha256 | None = Field(
        default=None,
        description="The expected sha256 digest of the checkpoint. Another one is rejected. Of a folder: the digest "
        "of the lines `name sha256` of the files that are read, sorted by name.",
    )
    name: ModelName | None = Field(
        default=None,
        description="The network architecture. Required, like the other architecture fields, only if the checkpoint "
        "has no metadata.",
    )
    downs: Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)] | None = (
        Field(default=None, description="The number of channels of each level, outermost first.")
    )
    time_emb_dim: Annotated[int, Field(ge=2, le=4096)] | None = Field(
        default=None, description="The width of the time embedding."
    )
    img_size: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="The height and width of an image in pixels."
    )
    channels: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="The number of channels of an image."
    )
    time_embedding: TimeEmbedding | None = Field(
        default=None,
        description="What the time embedding encodes: step is the timestep; row is the index in the batch, as in the "
        "original implementation.",
    )
    attention_norm: bool | None = Field(
        default=None,
        description="Whether a Unet applies the BatchNorm of its attention. Versions of the original implementation "
        "differ in this, with the same weights. By default, the statistics in the checkpoint decide.",
    )
    footprint: Footprint | None = Field(
        default=None,
        description="What the network takes. `kubectl ddpm submit` reads it in the configuration of a local pipeline. "
        "Without it, the plan of a pipeline is an assumption, and the driver chooses the batch size.",
    )


class Sampler(Model):
    """How samples are drawn. The defaults of the schedule come from the checkpoint's metadata."""

    name: SamplerName | None = Field(
        default=None,
        description="The sampler: ddpm (ancestral), ddim, dpmpp (DPM-Solver++ 2M), heun or unipc. Defaults to that of "
        "the checkpoint's pipeline, else ddpm.",
    )
    timesteps: Timesteps | None = Field(
        default=None, description="The number of timesteps of the noise schedule that the checkpoint was trained with."
    )
    steps: Timesteps | None = Field(
        default=None,
        description="Steps of a sample's chain. Defaults to all timesteps for ddpm, 50 for ddim and 20 for others.",
    )
    eta: Annotated[
        str,
        Field(min_length=1, max_length=10),
        Matches('eta must be a decimal from 0 to 1 in quotes, such as "0.5"', r"0(?:\.[0-9]{1,8})?|1(?:\.0{1,8})?"),
    ] = Field(
        default="0",
        description="The stochasticity of ddim, a decimal in quotes: 0 is deterministic, 1 corresponds to ddpm.",
    )
    schedule: ScheduleName | None = Field(
        default=None, description="The noise schedule that the checkpoint was trained with."
    )
    variance: Variance | None = Field(
        default=None,
        description="The variance of a ddpm step: large (beta_t), small (the posterior variance) or learned_range.",
    )
    prediction_type: Prediction | None = Field(
        default=None,
        description="What the network predicts. This and the fields after it are those of diffusers' schedulers, and "
        "default to the checkpoint's scheduler_config.json.",
    )
    beta_start: Fraction | None = Field(default=None, description="The first beta, a decimal in quotes.")
    beta_end: Fraction | None = Field(default=None, description="The last beta, a decimal in quotes.")
    rescale_betas_zero_snr: bool | None = Field(
        default=None, description="Whether the betas are rescaled so that the last timestep is pure noise."
    )
    clip_sample: bool | None = Field(default=None, description="Whether the predicted x_0 is clamped.")
    clip_sample_range: Decimal | None = Field(
        default=None, description="The range of that clamp, a decimal in quotes. Defaults to 1."
    )
    thresholding: bool | None = Field(default=None, description="Whether x_0 is thresholded dynamically instead.")
    dynamic_thresholding_ratio: Fraction | None = Field(
        default=None, description="The quantile of dynamic thresholding, a decimal in quotes. Defaults to 0.995."
    )
    sample_max_value: Decimal | None = Field(
        default=None, description="The largest threshold, a decimal in quotes. Defaults to 1."
    )
    timestep_spacing: Spacing | None = Field(
        default=None, description="Which timesteps a chain visits that is shorter than the training's."
    )
    steps_offset: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Added to the timesteps of the spacing leading."
    )
    set_alpha_to_one: bool | None = Field(
        default=None, description="Whether the last step of ddim removes all noise. Defaults to true."
    )

    @rule(
        "!has(self.steps) || !has(self.timesteps) || self.steps <= self.timesteps",
        "steps must be less than or equal to timesteps: a sampler visits each timestep at most once",
        field="steps",
    )
    def _steps_at_most_timesteps(self) -> bool:
        return self.steps is None or self.timesteps is None or self.steps <= self.timesteps


class WorkerPod(Model):
    """The size of a worker pod."""

    cpu: Cpu = Field(default="2", description="CPU request and limit.")
    memory: Memory = Field(default="4Gi", description="Memory request and limit.")


class HeadPod(Model):
    """The size of the head pod, which runs the driver.

    If there are no workers, the head also draws the samples and gets the larger of both sizes.
    """

    cpu: Cpu = Field(default="1", description="CPU request. The limit is one CPU higher.")
    memory: Memory = Field(default="2Gi", description="Memory request and limit.")


class Resources(Model):
    """The compute resources that the sampling may use."""

    # The CEL rules test `has()` although every field has a default: the API server also evaluates them on the
    # default `{}`, before it fills in the fields.

    device: Device = Field(
        default="auto",
        description="The device of the network: cuda, cpu, or auto, which is cuda if gpus is greater than 0.",
    )
    gpus: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="The maximum number of GPUs in total. Fewer are used if there are fewer shards."
    )
    gpu_resource_name: ResourceName = Field(
        default="nvidia.com/gpu", description="The extended resource name of a GPU."
    )
    tasks_per_gpu: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="The maximum number of tasks that share a GPU. 4 is equivalent to --num_gpus_per_task 0.25.",
    )
    max_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=4, description="The maximum number of worker pods. If 0, the head draws all samples, on CPUs."
    )
    worker: WorkerPod = Field(default=WorkerPod(), description="The size of a worker pod.")
    head: HeadPod = Field(default=HeadPod(), description="The size of the head pod.")
    allow_mixed_hardware: bool = Field(
        default=False,
        description="If true, later attempts may draw on other hardware than the first, and workers may be of several "
        "kinds. The samples then agree within rounding only, and the manifest says which shards were drawn on what.",
    )

    @rule(
        "!has(self.device) || self.device != 'cuda' || self.gpus > 0",
        "device cuda requires GPUs: set gpus to the total number of GPUs",
        field="gpus",
    )
    def _cuda_has_gpus(self) -> bool:
        return self.device != "cuda" or self.gpus > 0

    @rule(
        "!has(self.device) || self.device != 'cpu' || self.gpus == 0",
        "device cpu uses no GPUs: set gpus to 0",
        field="gpus",
    )
    def _cpu_has_no_gpus(self) -> bool:
        return self.device != "cpu" or self.gpus == 0

    @rule(
        "!has(self.gpus) || self.gpus == 0 || self.maxWorkers > 0",
        "GPUs are assigned to workers, not to the head: set maxWorkers to 1 or more",
        field="maxWorkers",
    )
    def _gpus_have_workers(self) -> bool:
        return self.gpus == 0 or self.max_workers > 0


class Claim(Model):
    """The PersistentVolumeClaim that is created for the samples, named `<name>-output`."""

    size: Size | None = Field(
        default=None,
        description="The requested size. By default computed from samples and the image size, with room to grow.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None, description="The StorageClass. Defaults to the default StorageClass of the cluster."
    )
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=3)] = Field(
        default=("ReadWriteOnce",),
        description="The access modes. With ReadWriteMany, each worker writes its own samples; otherwise the head "
        "writes all samples.",
    )
    retention_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="Retain keeps the claim when the DDPMSampling is deleted; one of the same name reuses it. "
        "Delete deletes the claim with the DDPMSampling.",
    )

    @rule(
        "!has(self.accessModes) || self.accessModes.size() == 1 "
        "|| !self.accessModes.exists(mode, mode == 'ReadWriteOncePod')",
        "ReadWriteOncePod must be the only access mode: remove the others",
        field="accessModes",
    )
    def _once_pod_is_the_only_mode(self) -> bool:
        return len(self.access_modes) == 1 or "ReadWriteOncePod" not in self.access_modes


class Output(Model):
    """Where and in which formats the samples are stored."""

    uri: OutputUri | None = Field(
        default=None,
        description="The location of the samples: s3://bucket/folder or pvc://claim/folder. By default, a claim is "
        "created.",
    )
    claim: Claim | None = Field(default=None, description="The claim to create. Must be empty if uri is set.")
    formats: Annotated[tuple[Format, ...], Field(max_length=len(get_args(Format)))] = Field(
        default=("npy", "png"),
        description="Files to write in addition to the shards: npy is samples.npy, png is grid.png with the first 100 "
        "samples.",
    )

    @rule(
        "!has(self.uri) || !has(self.claim)",
        "uri and claim are mutually exclusive: remove claim",
        field="claim",
    )
    def _uri_or_claim(self) -> bool:
        return self.uri is None or self.claim is None


def _immutable(path: str, reason: str) -> Rule:
    """Returns a transition rule that rejects changing, adding or removing the value at a path."""
    first, *_ = parts = path.split(".")

    def has(version: str) -> str:
        return " && ".join(f"has({version}.{'.'.join(parts[: n + 1])})" for n in range(len(parts)))

    cel = f"({has('self')}) == ({has('oldSelf')}) && (!({has('self')}) || self.{path} == oldSelf.{path})"
    return Rule(cel, f"{path} is immutable, {reason}", first)


_DETERMINES_SAMPLES = "because it determines the samples: create a new DDPMSampling"


class Spec(Model):
    """The desired state of a sampling. Only model.uri and samples are required."""

    transitions = (
        *(_immutable(p, _DETERMINES_SAMPLES) for p in ("model", "seed", "sampler", "precision", "batchSize")),
        _immutable("resources.device", _DETERMINES_SAMPLES),
        _immutable("image", _DETERMINES_SAMPLES),
        _immutable("output", "because samples are stored there: create a new DDPMSampling"),
        Rule(
            "self.samples >= oldSelf.samples",
            "samples can only be increased: stored samples are kept",
            "samples",
        ),
    )

    model: Checkpoint = Field(description="The trained network. Immutable.")
    samples: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        description="The number of images to draw. It can be increased at any time; only the missing samples are drawn."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        default=0,
        description="The seed of the random noise. Sample i depends only on the seed, on i and on the other immutable "
        "fields. Immutable.",
    )
    sampler: Sampler = Field(default=Sampler(), description="How samples are drawn. Immutable.")
    precision: Precision = Field(default="fp32", description="The floating-point format of the network. Immutable.")
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="The number of samples that a task draws at once. By default chosen from the image size and the "
        "device. Immutable.",
    )
    resources: Resources = Field(default=Resources(), description="The compute resources that the sampling may use.")
    pod_overrides: PodOverrides | None = Field(
        default=None, description="Pod fields to set on the head and on all workers."
    )
    output: Output = Field(
        default=Output(), description="Where and in which formats the samples are stored. Immutable."
    )
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="A Secret with environment variables for access to s3:// URIs: AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY and, for storage other than Amazon S3, AWS_ENDPOINT_URL; and to hf:// URIs: HF_TOKEN "
        "and, for another hub, HF_ENDPOINT.",
    )
    image: (
        Annotated[
            str,
            Field(min_length=1, max_length=512),
            Matches(
                "image must be an image reference, such as registry.example.com/ddpm-ray-worker:1.0",
                r"[A-Za-z0-9](?:[-A-Za-z0-9._:/]*[A-Za-z0-9])?(?:@sha256:[0-9a-f]{64})?",
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="The container image of the pods. Defaults to the worker image of the operator. Immutable.",
    )
    suspend: bool = Field(
        default=False,
        description="If true, the RayCluster is deleted and the samples are kept. Set it to false to resume.",
    )
    repair: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0,
        description="Increase it to check all stored files of a completed sampling, and to draw damaged samples again, "
        "as `kubectl ddpm retry --repair` does.",
    )
    queue_name: Annotated[LabelValue, Field(min_length=1)] | None = Field(
        default=None, description="The Kueue LocalQueue that admits the sampling."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="The number of retries after a failed attempt. Each attempt draws only the missing samples.",
    )
    startup_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = Field(
        default=600,
        description="How long an attempt may take from its admission until it starts to sample before it fails.",
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None,
        description="How long the sampling may run, summed over all attempts, before it fails. By default unlimited.",
    )
    ttl_seconds_after_finished: Seconds | None = Field(
        default=None,
        description="How long a finished DDPMSampling is kept before it is deleted. By default forever. Its RayCluster "
        "is deleted immediately.",
    )
    keep_cluster_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=0, description="How long the RayCluster of a failed attempt is kept for debugging."
    )
