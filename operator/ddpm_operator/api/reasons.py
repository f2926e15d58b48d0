"""The closed lists of words a DDPMSampling speaks in: phases, conditions, failures, events."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a sampling stands, in one word for a table. Programs look at the conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """What `kubectl wait --for=condition=…` can wait for."""

    ACCEPTED = "Accepted"
    CLUSTER_READY = "ClusterReady"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    CLEANED_UP = "CleanedUp"
    QUALITY_PASSED = "QualityPassed"


# The reason of CleanedUp while a failure's RayCluster is kept for a look at it.
KEPT = "Kept"


class FailureReason(StrEnum):
    """Why a sampling failed; each with what to do about it."""

    hint: str

    def __new__(cls, value: str, hint: str) -> FailureReason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.hint = hint
        return member

    INVALID_SPEC = "InvalidSpec", "Correct the field the message names, in a new DDPMSampling if it is immutable."
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "Look whether spec.model.uri exists and whether credentialsSecretRef may read it.",
    )
    MODEL_REJECTED = (
        "ModelRejected",
        "Check the checkpoint with `ddpm-sample convert`; a bare .pt needs model.name, downs and timeEmbDim.",
    )
    REFERENCE_NOT_FOUND = (
        "ReferenceNotFound",
        "Create the secret, claim or service account that the message names, in the sampling's own namespace.",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "Correct spec.image, or give podOverrides.imagePullSecrets for a private registry.",
    )
    POD_REJECTED = (
        "PodRejected",
        "The namespace's Pod Security level, a LimitRange or a webhook refuses the pods: "
        "change what the message names in spec.resources or podOverrides.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node fits the pods: lower spec.resources, look at podOverrides, or raise startupDeadlineSeconds "
        "where nodes are added on demand.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "The namespace's ResourceQuota is smaller than the plan: lower maxWorkers, gpus or the pods' sizes.",
    )
    KUBERAY_MISSING = (
        "KubeRayMissing",
        "Ask the cluster's administrator to install KubeRay 1.6 or newer, or look whether it is running.",
    )
    STARTUP_DEADLINE_EXCEEDED = (
        "StartupDeadlineExceeded",
        "Raise spec.startupDeadlineSeconds, or look at the pods' events for what they waited for.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "Raise spec.activeDeadlineSeconds, then run `kubectl ddpm retry`: the samples that are done stay done.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Raise resources.worker.memory (or head.memory), or lower tasksPerGPU, then run `kubectl ddpm retry`.",
    )
    WORKER_LOST = (
        "WorkerLost",
        "Nodes or pods went away too often; `kubectl ddpm retry` goes on with what is missing.",
    )
    HEAD_LOST = (
        "HeadLost",
        "Look at what became of the head pod and its node; `kubectl ddpm retry` goes on with what is missing.",
    )
    STORAGE_FAILED = (
        "StorageFailed",
        "Look at the output's free space and at who may write there, then run `kubectl ddpm retry`.",
    )
    OUTPUT_CONFLICT = (
        "OutputConflict",
        "The output holds another sampling's samples: give a new DDPMSampling another spec.output.uri.",
    )
    DRIVER_FAILED = (
        "DriverFailed",
        "Read failure.logTail or `kubectl ddpm logs`; `kubectl ddpm retry` goes on with what is missing.",
    )
    INTERNAL_ERROR = (
        "InternalError",
        "A fault of the operator, not of the sampling: please report it with the operator's log.",
    )


class EventReason(StrEnum):
    """The events a sampling gets, each once per transition."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    QUEUED = "Queued"
    CLUSTER_CREATED = "ClusterCreated"
    STARTED = "Started"
    GROWN = "Grown"
    ATTEMPT_FAILED = "AttemptFailed"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CLUSTER_DELETED = "ClusterDeleted"
