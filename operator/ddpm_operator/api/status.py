"""The status of a DDPMSampling, which the operator writes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, PlainSerializer

from ddpm_operator.api.model import Model
from ddpm_operator.api.reasons import ConditionType, FailureReason, Phase

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=1024)]
MAX_KEY_LENGTH = 317  # of a label


def _short_keys(value: dict[str, object]) -> dict[str, object]:
    if any(len(key) > MAX_KEY_LENGTH for key in value):
        raise ValueError(f"a key must have at most {MAX_KEY_LENGTH} characters")
    return value


# Not a rule in CEL: only the operator writes the status, and the rules of a CRD have a common budget.
SHORT_KEYS = AfterValidator(_short_keys)
HardwareFields = Annotated[dict[str, Annotated[str, Field(max_length=128)]], Field(max_length=16), SHORT_KEYS]
MAX_NODES = 32
"""Nodes that a `Placement` remembers of each kind, and values of a label."""
NodeName = Annotated[str, Field(min_length=1, max_length=253)]


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[AwareDatetime, PlainSerializer(_rfc3339)]


class Condition(Model):
    """One aspect of the current state of the sampling, in the format of metav1.Condition."""

    type: ConditionType = Field(description="The type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="The status of the condition.")
    reason: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="A CamelCase reason for the last transition."
    )
    message: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="A human-readable message with details about the transition."
    )
    last_transition_time: Time = Field(description="The last time the status of the condition changed.")
    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation that the condition was set for."
    )


class Plan(Model):
    """How the work is divided among pods.

    Attributes:
        batch_size, shards: None while they depend on the image size of a checkpoint that the operator cannot read.
    """

    device: Literal["cpu", "cuda"] = Field(description="The device of the network. All later attempts use the same.")
    workers: Count = Field(description="The number of worker pods. If 0, the head draws all samples.")
    gpus: Count = Field(description="The total number of GPUs. Each worker has the same number.")
    tasks_per_gpu: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The number of tasks that share a GPU. Unset on cpu."
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The number of samples that a task draws at once. Unset until the checkpoint has been read.",
    )
    shards: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The number of shards, one per batch. Unset until the batch size is known."
    )
    hardware: HardwareFields | None = Field(
        default=None,
        description="The hardware that decides the last bits of the samples, as reported by the first attempt. All "
        "later attempts need the same, unless resources.allowMixedHardware is true.",
    )
    why: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=16)] = Field(
        default=(), description="An explanation of the plan in plain sentences."
    )

    @property
    def gpus_per_worker(self) -> int:
        return self.gpus // self.workers if self.workers else 0


class Placement(Model):
    """Where later attempts may draw: on nodes with the hardware of the first attempt.

    Unused while spec.resources.allowMixedHardware is true.
    """

    node_labels: Annotated[
        dict[str, Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=MAX_NODES)]],
        Field(max_length=16),
        SHORT_KEYS,
    ] = Field(
        default={},
        description="Labels of the nodes that have drawn samples. A pod that draws needs a node with one of the values "
        "of each label.",
    )
    nodes: Annotated[tuple[NodeName, ...], Field(max_length=MAX_NODES)] = Field(
        default=(), description="Nodes that have drawn samples, at most the first 32. They are preferred."
    )
    excluded_nodes: Annotated[tuple[NodeName, ...], Field(max_length=MAX_NODES)] = Field(
        default=(), description="Nodes that were found to have other hardware, at most the last 32. They are not used."
    )
    unscheduled_attempts: Count | None = Field(
        default=None,
        description="The number of attempts in a row that no node could run because of this placement. The pause "
        "before the next attempt grows with it.",
    )
    last_unscheduled_time: Time | None = Field(
        default=None, description="The time the last of these attempts ended. The pause is measured from it."
    )


class Progress(Model):
    """The progress of the sampling."""

    done: Count = Field(description="The number of stored samples.")
    total: Count = Field(description="The requested number of samples.")
    percent: Annotated[int, Field(ge=0, le=100)] = Field(description="done as a percentage of total, rounded down.")
    samples_per_second: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="The current rate in samples per second."
    )
    estimated_remaining_seconds: Count | None = Field(
        default=None, description="The estimated remaining time in seconds at the current rate."
    )
    eta: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="The estimated remaining time in human-readable form, such as 2m10s."
    )
    last_update_time: Time | None = Field(default=None, description="The last time the driver reported its progress.")


class Cluster(Model):
    """The RayCluster of the current attempt."""

    name: Annotated[str, Field(min_length=1, max_length=50)] = Field(description="The name of the RayCluster.")
    dashboard: Text | None = Field(
        default=None, description="The address of the Ray dashboard inside the Kubernetes cluster."
    )
    start_time: Time | None = Field(
        default=None, description="The time the attempt was admitted. startupDeadlineSeconds is measured from it."
    )
    head_uid: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="The UID of the head pod. If this pod is gone or replaced, the attempt has failed."
    )
    scheduled_time: Time | None = Field(
        default=None, description="The time the head pod was scheduled. The cost is measured from it."
    )
    constrained: bool | None = Field(
        default=None, description="True if status.placement limits the nodes that the attempt may draw on."
    )
    excluded_nodes: Count | None = Field(
        default=None, description="The number of nodes that status.placement excluded when the attempt began."
    )
    repair: Count | None = Field(
        default=None, description="The value of spec.repair, if the attempt checks all stored files because of it."
    )

    @property
    def was_seen(self) -> bool:
        """Whether the operator has seen the RayCluster exist; the dashboard's address is recorded at that time."""
        return self.dashboard is not None


class Result(Model):
    """The location of the samples."""

    uri: Text = Field(description="The URI of the samples.")
    manifest_sha256: Annotated[str, Field(min_length=64, max_length=64)] | None = Field(
        default=None, description="The sha256 digest of manifest.json, which lists every file with its digest."
    )
    grid: Text | None = Field(
        default=None, description="The ConfigMap with the preview image grid.png. Unset until it has been written."
    )


class Cost(Model):
    """The resources used by the sampling, summed over all attempts."""

    gpu_seconds: Count = Field(
        default=0, description="GPU seconds: the number of reserved GPUs times the duration in seconds."
    )
    cpu_seconds: Count = Field(
        default=0, description="CPU seconds: the number of reserved CPUs times the duration in seconds."
    )


class Failure(Model):
    """Why the sampling or its last attempt failed."""

    reason: FailureReason = Field(description="A machine-readable reason.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="What went wrong, and where.")
    hint: Text = Field(default="", description="What to do about it.")
    log_tail: Annotated[str, Field(max_length=2048)] = Field(default="", description="The end of the driver's log.")
    time: Time | None = Field(
        default=None, description="The time of the failure. The backoff of the next attempt is measured from it."
    )
    backoff_limit: Count | None = Field(
        default=None,
        description="spec.backoffLimit at the time of the failure. A failed sampling is retried if it is increased.",
    )


class Status(Model):
    """The observed state of a sampling."""

    phase: Phase | None = Field(
        default=None,
        description="A one-word summary of the conditions, for tables. Programs should read the conditions.",
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = Field(
        default=(),
        description="The latest observations of the sampling's state.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: Count | None = Field(
        default=None, description="The metadata.generation of the spec that the operator last acted on."
    )
    attempt: Count | None = Field(default=None, description="The number of the current attempt, starting at 1.")
    failed_attempts: Count | None = Field(
        default=None,
        description="The number of failed attempts since the sampling started or was last extended. If it exceeds "
        "backoffLimit, the sampling has failed.",
    )
    running_seconds: Count | None = Field(
        default=None, description="The running time of all earlier attempts in seconds, for activeDeadlineSeconds."
    )
    start_time: Time | None = Field(default=None, description="The time the first attempt was admitted.")
    completion_time: Time | None = Field(default=None, description="The time the sampling completed or failed.")
    repaired: Count | None = Field(
        default=None, description="The value of spec.repair that the last completed check of all stored files was for."
    )
    image: Annotated[str, Field(max_length=512)] | None = Field(
        default=None,
        description="The container image of the pods. All later attempts use the same. It is pinned by digest, unless "
        "the node reports no digest, such as for an image that was loaded without a registry.",
    )
    plan: Plan | None = Field(default=None, description="How the work is divided among pods.")
    placement: Placement | None = Field(
        default=None, description="The nodes on which later attempts may draw. Unset until the hardware is known."
    )
    progress: Progress | None = Field(default=None, description="The progress of the sampling.")
    cluster: Cluster | None = Field(default=None, description="The RayCluster of the current attempt, if any.")
    output: Result | None = Field(default=None, description="The location of the samples.")
    cost: Cost | None = Field(default=None, description="The resources used by the sampling.")
    failure: Failure | None = Field(default=None, description="Why the sampling or its last attempt failed.")
