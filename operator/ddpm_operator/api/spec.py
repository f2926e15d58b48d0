"""What a DDPMSampling asks for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ddpm_operator.api.model import Model
from ddpm_operator.api.names import LabelValue, ObjectName, ResourceName
from ddpm_operator.api.pod_overrides import LocalReference, PodOverrides
from ddpm_operator.api.quantity import Quantity
from ddpm_operator.api.rules import Matches, Rule, rule
from ddpm_operator.api.uri import ModelUri, OutputUri

ModelName = Literal["Unet", "SimpleUnet"]
TimeEmbedding = Literal["step", "row"]
ScheduleName = Literal["linear", "cosine", "cosine_origin", "sigmoid"]
SamplerName = Literal["ddpm", "ddim", "dpmpp"]
Variance = Literal["large", "small"]
Precision = Literal["fp32", "bf16"]
Device = Literal["auto", "cuda", "cpu"]
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]
Format = Literal["npy", "png"]

Sha256 = Annotated[
    str,
    Field(min_length=64, max_length=64),
    Matches("a sha256 is 64 characters of 0-9 and a-f, as sha256sum prints it", "[0-9a-f]{64}"),
]
Timesteps = Annotated[int, Field(ge=1, le=100_000)]
Cpu = Annotated[str, Quantity("cpu is a quantity from 100m to 1024, such as 2 or 500m", "100m", "1024")]
Memory = Annotated[str, Quantity("memory is a quantity from 1Gi, which Ray and torch need, to 64Ti", "1Gi", "64Ti")]
Size = Annotated[str, Quantity("a claim's size is a quantity from 1Mi to 1Pi, such as 10Gi", "1Mi", "1Pi")]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]


class Checkpoint(Model):
    """The trained network."""

    uri: ModelUri = Field(
        description="Where the checkpoint is: builtin://name (in the image), pvc://claim/path, s3://bucket/key or "
        "https://host/path, which is read without a login: pin it by sha256. gs://bucket/key is reserved."
    )
    sha256: Sha256 | None = Field(
        default=None, description="The checkpoint's sha256. Another file in its place is refused."
    )
    name: ModelName | None = Field(
        default=None,
        description="The architecture; only where the checkpoint has no metadata, as the fields that follow.",
    )
    downs: Annotated[tuple[Annotated[int, Field(ge=2, le=4096)], ...], Field(min_length=1, max_length=8)] | None = (
        Field(default=None, description="Channels of each level, outermost first.")
    )
    time_emb_dim: Annotated[int, Field(ge=2, le=4096)] | None = Field(
        default=None, description="Width of the time embedding."
    )
    img_size: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Height and width of an image, in pixels."
    )
    channels: Annotated[int, Field(ge=1, le=64)] | None = Field(default=None, description="Channels of an image.")
    time_embedding: TimeEmbedding | None = Field(
        default=None,
        description="What the network's time embedding encodes: the step, or as the original did the batch's row.",
    )


class Sampler(Model):
    """How samples are drawn. What is absent comes from the checkpoint's metadata."""

    name: SamplerName = Field(default="ddpm", description="ddpm (ancestral), ddim, or dpmpp (DPM-Solver++ 2M).")
    timesteps: Timesteps | None = Field(
        default=None, description="Timesteps of the schedule the checkpoint was trained with."
    )
    steps: Timesteps | None = Field(
        default=None,
        description="Network evaluations a sample; absent: all timesteps for ddpm, 50 for ddim, 20 for dpmpp.",
    )
    eta: Annotated[
        str,
        Field(min_length=1, max_length=10),
        Matches('eta is a decimal from 0 to 1 in quotes, such as "0.5"', r"0(?:\.[0-9]{1,8})?|1(?:\.0{1,8})?"),
    ] = Field(default="0", description="Noise of ddim: 0 is deterministic, 1 is like ddpm. A decimal in quotes.")
    schedule: ScheduleName | None = Field(default=None, description="Noise schedule the checkpoint was trained with.")
    variance: Variance | None = Field(
        default=None, description="Variance of a ddpm step: large (beta_t) or small (the posterior's)."
    )

    @rule(
        "!has(self.steps) || !has(self.timesteps) || self.steps <= self.timesteps",
        "steps cannot be more than timesteps: a sampler visits each timestep at most once",
        field="steps",
    )
    def _steps_fit_into_timesteps(self) -> bool:
        return self.steps is None or self.timesteps is None or self.steps <= self.timesteps


class WorkerPod(Model):
    """Size of a worker pod."""

    cpu: Cpu = Field(default="2", description="CPUs.")
    memory: Memory = Field(default="4Gi", description="Memory.")


class HeadPod(Model):
    """Size of the head pod, which runs the driver. Alone, it gets a worker's size where that is larger."""

    cpu: Cpu = Field(default="1", description="CPUs.")
    memory: Memory = Field(default="2Gi", description="Memory.")


class Resources(Model):
    """What the sampling may take of the cluster."""

    # The rules ask `has` although every field has a default: the API server tries them on the default `{}` too.

    device: Device = Field(default="auto", description="cuda, cpu, or auto: cuda if gpus is more than 0.")
    gpus: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0, description="GPUs in all, at most; the cluster is sized from it and from samples."
    )
    gpu_resource_name: ResourceName = Field(default="nvidia.com/gpu", description="The nodes' name for a GPU.")
    tasks_per_gpu: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Tasks that share a GPU, at most; 4 is --num_gpus_per_task 0.25 of the command."
    )
    max_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=4, description="Worker pods, at most; 0 has the head sample alone, on CPUs."
    )
    worker: WorkerPod = Field(default=WorkerPod(), description="Size of a worker pod.")
    head: HeadPod = Field(default=HeadPod(), description="Size of the head pod.")

    @rule(
        "!has(self.device) || self.device != 'cuda' || self.gpus > 0",
        "device cuda needs GPUs: say in gpus how many in all",
        field="gpus",
    )
    def _cuda_has_gpus(self) -> bool:
        return self.device != "cuda" or self.gpus > 0

    @rule(
        "!has(self.device) || self.device != 'cpu' || self.gpus == 0",
        "device cpu takes no GPU: leave gpus at 0",
        field="gpus",
    )
    def _cpu_has_no_gpus(self) -> bool:
        return self.device != "cpu" or self.gpus == 0

    @rule(
        "!has(self.gpus) || self.gpus == 0 || self.maxWorkers > 0",
        "GPUs are held by workers, and the head takes none: set maxWorkers to 1 or more",
        field="maxWorkers",
    )
    def _gpus_have_workers(self) -> bool:
        return self.gpus == 0 or self.max_workers > 0


class Claim(Model):
    """The claim made for the samples, named `<name>-output`."""

    size: Size | None = Field(
        default=None, description="Its size; absent: from samples and image size, with room to grow."
    )
    storage_class_name: ObjectName | None = Field(
        default=None, description="Its StorageClass; absent: the cluster's default."
    )
    access_modes: Annotated[tuple[AccessMode, ...], Field(min_length=1, max_length=3)] = Field(
        default=("ReadWriteOnce",),
        description="ReadWriteMany lets workers write themselves; else they hand over to the head.",
    )
    retention_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="Retain: the claim outlives the resource, and a resource of the same name goes on with it. "
        "Delete: it is deleted with the resource.",
    )

    @rule(
        "!has(self.accessModes) || self.accessModes.size() == 1 "
        "|| !self.accessModes.exists(mode, mode == 'ReadWriteOncePod')",
        "ReadWriteOncePod goes with no other access mode: leave the others out",
        field="accessModes",
    )
    def _one_pod_alone(self) -> bool:
        return len(self.access_modes) == 1 or "ReadWriteOncePod" not in self.access_modes


class Output(Model):
    """Where the samples are kept."""

    uri: OutputUri | None = Field(
        default=None,
        description="s3://bucket/folder or pvc://claim/folder; absent: a claim is made for the sampling.",
    )
    claim: Claim | None = Field(default=None, description="The claim to make where uri is absent.")
    formats: Annotated[tuple[Format, ...], Field(max_length=2)] = Field(
        default=("npy", "png"), description="Forms beside the shards: samples.npy, and grid.png of the first 100."
    )

    @rule(
        "!has(self.uri) || !has(self.claim)",
        "uri already says where the samples go: leave claim out",
        field="claim",
    )
    def _one_place(self) -> bool:
        return self.uri is None or self.claim is None


def _unchanging(path: str, words: str) -> Rule:
    """Refuses another value, a value where none was, and none where one was."""
    first, *_ = parts = path.split(".")

    def has(version: str) -> str:
        return " && ".join(f"has({version}.{'.'.join(parts[: n + 1])})" for n in range(len(parts)))

    cel = f"({has('self')}) == ({has('oldSelf')}) && (!({has('self')}) || self.{path} == oldSelf.{path})"
    return Rule(cel, f"{path} cannot be changed, {words}", first)


_DECIDES = "because it decides what the samples look like: create a new DDPMSampling"


class Spec(Model):
    """What is asked for. Only model.uri and samples must be given."""

    transitions = (
        *(_unchanging(p, _DECIDES) for p in ("model", "seed", "sampler", "precision", "batchSize")),
        _unchanging("resources.device", _DECIDES),
        _unchanging("image", _DECIDES),
        _unchanging("output", "because samples are there already: create a new DDPMSampling"),
        Rule(
            "self.samples >= oldSelf.samples",
            "samples can only grow: those that are there are kept",
            "samples",
        ),
    )

    model: Checkpoint = Field(description="The trained network. Immutable.")
    samples: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        description="Images to draw. May grow at any time: only those that are missing are drawn."
    )
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        default=0, description="With the same seed and everything else equal, sample i is the same. Immutable."
    )
    sampler: Sampler = Field(default=Sampler(), description="How samples are drawn. Immutable.")
    precision: Precision = Field(default="fp32", description="Number format of the network. Immutable.")
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="Samples drawn at once by a task; absent: chosen from model and device. Immutable.",
    )
    resources: Resources = Field(default=Resources(), description="What the sampling may take of the cluster.")
    pod_overrides: PodOverrides | None = Field(
        default=None, description="What is changed of the pods: this list and no more."
    )
    output: Output = Field(default=Output(), description="Where the samples are kept. Immutable.")
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="Secret with the environment variables that s3:// and the like need: AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and others.",
    )
    image: (
        Annotated[
            str,
            Field(min_length=1, max_length=512),
            Matches(
                "image is a reference such as registry.example.com/ddpm-ray-worker:1.0",
                r"[A-Za-z0-9](?:[-A-Za-z0-9._:/]*[A-Za-z0-9])?(?:@sha256:[0-9a-f]{64})?",
            ),
        ]
        | None
    ) = Field(default=None, description="Image of the pods; absent: the operator's default. Immutable.")
    suspend: bool = Field(default=False, description="Stop: the cluster goes, the samples stay. false goes on.")
    queue_name: Annotated[LabelValue, Field(min_length=1)] | None = Field(
        default=None, description="The Kueue LocalQueue that admits the sampling."
    )
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3,
        description="Further attempts after one that failed; each draws only the samples that are missing.",
    )
    startup_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = Field(
        default=600, description="An attempt that has not begun to sample so long after its admission has failed."
    )
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None, description="The sampling fails after running so long, all attempts together; absent: never."
    )
    ttl_seconds_after_finished: Seconds | None = Field(
        default=None,
        description="The resource is deleted so long after its end; absent: never. Its cluster goes at once.",
    )
    keep_cluster_seconds: Annotated[int, Field(ge=0, le=86_400)] = Field(
        default=0, description="A failed attempt's cluster is kept so long, for looking into the failure."
    )
