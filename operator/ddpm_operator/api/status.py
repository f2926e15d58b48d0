"""What the operator says of a DDPMSampling."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, PlainSerializer

from ddpm_operator.api.model import Model
from ddpm_operator.api.reasons import ConditionType, FailureReason, Phase

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=1024)]


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Time = Annotated[AwareDatetime, PlainSerializer(_rfc3339)]


class Condition(Model):
    """One thing that is true, false or unknown of the sampling, in the form of Kubernetes' own conditions."""

    type: ConditionType = Field(description="What is said.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it is so.")
    reason: Annotated[str, Field(min_length=1, max_length=64)] = Field(description="Why, in one word.")
    message: Annotated[str, Field(max_length=4096)] = Field(default="", description="Why, in a sentence.")
    last_transition_time: Time = Field(description="Since when it is so.")
    observed_generation: Count | None = Field(default=None, description="The version of the spec it is said of.")


class Plan(Model):
    """How the sampling is spread over pods.

    Attributes:
        batch_size, shards: None where the checkpoint's image size decides them, which the operator does not know.
    """

    device: Literal["cpu", "cuda"] = Field(description="Where the network runs; kept by every later attempt.")
    workers: Count = Field(description="Worker pods; 0: the head samples alone.")
    gpus: Count = Field(description="GPUs in all, the same number on each worker.")
    tasks_per_gpu: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Tasks that share a GPU; none on cpu."
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Samples drawn at once by a task; absent until the checkpoint has chosen it."
    )
    shards: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Files the samples fall into, one a batch; absent until the batch size is known."
    )
    why: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=16)] = Field(
        default=(), description="How these numbers came about, in sentences."
    )

    @property
    def gpus_per_worker(self) -> int:
        return self.gpus // self.workers if self.workers else 0


class Progress(Model):
    """How far the sampling is."""

    done: Count = Field(description="Samples that are stored.")
    total: Count = Field(description="Samples asked for.")
    percent: Annotated[int, Field(ge=0, le=100)] = Field(description="done of total, rounded down.")
    samples_per_second: Annotated[str, Field(max_length=16)] | None = Field(default=None, description="Rate just now.")
    estimated_remaining_seconds: Count | None = Field(default=None, description="Seconds until the end at this rate.")
    eta: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="The same for people, such as 2m10s."
    )
    last_update_time: Time | None = Field(default=None, description="When the driver last said so.")


class Cluster(Model):
    """The attempt's RayCluster."""

    name: Annotated[str, Field(min_length=1, max_length=50)] = Field(description="Its name.")
    dashboard: Text | None = Field(
        default=None, description="Address of Ray's dashboard inside the Kubernetes cluster."
    )
    start_time: Time | None = Field(
        default=None, description="When the attempt was admitted; startupDeadlineSeconds counts from here."
    )
    head_uid: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="uid of its head pod; another one, or none, ends the attempt."
    )
    scheduled_time: Time | None = Field(
        default=None, description="When its head pod was given a node; the cost counts from here."
    )


class Result(Model):
    """The samples."""

    uri: Text = Field(description="Where they are.")
    manifest_sha256: Annotated[str, Field(min_length=64, max_length=64)] | None = Field(
        default=None, description="sha256 of manifest.json, which lists every file with its own."
    )
    grid: Text | None = Field(
        default=None, description="ConfigMap with a preview, grid.png; absent until it was written."
    )


class Cost(Model):
    """What the sampling has used, all attempts together."""

    gpu_seconds: Count = Field(default=0, description="GPUs times seconds.")
    cpu_seconds: Count = Field(default=0, description="CPUs times seconds.")


class Failure(Model):
    """Why the sampling failed, or its last attempt."""

    reason: FailureReason = Field(description="One of a closed list.")
    message: Annotated[str, Field(max_length=4096)] = Field(description="What went wrong, and where.")
    hint: Text = Field(default="", description="What to do about it.")
    log_tail: Annotated[str, Field(max_length=2048)] = Field(default="", description="End of the driver's log.")
    time: Time | None = Field(default=None, description="When it went wrong; the next attempt waits from here.")
    backoff_limit: Count | None = Field(
        default=None,
        description="spec.backoffLimit at the time. Once the sampling has failed, a higher one retries.",
    )


class Status(Model):
    """What the operator has seen and done."""

    phase: Phase | None = Field(
        default=None, description="Where the sampling stands, in one word; programs look at conditions."
    )
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = Field(
        default=(),
        description="What is true of the sampling just now.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    observed_generation: Count | None = Field(
        default=None, description="The version of the spec that all this is said of."
    )
    attempt: Count | None = Field(default=None, description="Number of the attempt, from 1.")
    failed_attempts: Count | None = Field(
        default=None, description="Attempts that failed since it began or grew; more than backoffLimit end it."
    )
    running_seconds: Count | None = Field(
        default=None, description="Seconds of running before the present attempt, for activeDeadlineSeconds."
    )
    start_time: Time | None = Field(default=None, description="When the first attempt was admitted.")
    completion_time: Time | None = Field(default=None, description="When the sampling ended, well or not.")
    image: Annotated[str, Field(max_length=512)] | None = Field(
        default=None,
        description="Image of the pods, kept by every later attempt: by its digest, or as it was asked for where "
        "the node knows no digest of that name, such as of an image that was loaded into it without a registry.",
    )
    plan: Plan | None = Field(default=None, description="How the sampling is spread over pods.")
    progress: Progress | None = Field(default=None, description="How far it is.")
    cluster: Cluster | None = Field(default=None, description="The attempt's RayCluster, while there is one.")
    output: Result | None = Field(default=None, description="Where the samples are.")
    cost: Cost | None = Field(default=None, description="What it has used.")
    failure: Failure | None = Field(default=None, description="Why it failed.")
