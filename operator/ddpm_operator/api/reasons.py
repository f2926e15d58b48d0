"""The enumerations of a DDPMSampling's status: phases, condition types, failure reasons and event reasons."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """A one-word summary of the conditions, for tables. Programs should read the conditions instead."""

    PENDING = "Pending"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """The condition types, as in `kubectl wait --for=condition=…`."""

    ACCEPTED = "Accepted"
    CLUSTER_READY = "ClusterReady"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    CLEANED_UP = "CleanedUp"
    QUALITY_PASSED = "QualityPassed"


# The reason of the condition CleanedUp while the RayCluster of a failed attempt is kept for debugging.
KEPT = "Kept"


# The reason of the condition ClusterReady while no node has the hardware that the next attempt needs.
WAITING_FOR_HARDWARE = "WaitingForHardware"


class FailureReason(StrEnum):
    """Why a sampling failed. Each reason has a hint that tells the user what to do."""

    hint: str

    def __new__(cls, value: str, hint: str) -> FailureReason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.hint = hint
        return member

    INVALID_SPEC = "InvalidSpec", "Correct the field the message names, in a new DDPMSampling if it is immutable."
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "Check that spec.model.uri exists and that the credentials in credentialsSecretRef may read it.",
    )
    MODEL_REJECTED = (
        "ModelRejected",
        "Check the checkpoint with `ddpm-sample convert`; a .pt file without metadata needs model.name, downs and "
        "timeEmbDim.",
    )
    REFERENCE_NOT_FOUND = (
        "ReferenceNotFound",
        "Create the Secret, claim or ServiceAccount that the message names, in the sampling's own namespace.",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "Correct spec.image, or set podOverrides.imagePullSecrets for a private registry.",
    )
    POD_REJECTED = (
        "PodRejected",
        "The namespace's Pod Security level, a LimitRange or a webhook rejects the pods: "
        "change the fields of spec.resources or podOverrides that the message names.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node fits the pods: lower spec.resources, check podOverrides, or raise startupDeadlineSeconds "
        "if an autoscaler adds nodes.",
    )
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "The namespace's ResourceQuota has no room for the pods: lower maxWorkers, gpus or the pods' sizes, or ask the "
        "cluster's administrator for a larger quota.",
    )
    KUBERAY_MISSING = (
        "KubeRayMissing",
        "Ask the cluster's administrator to install KubeRay 1.6 or newer, or to check that it is running.",
    )
    STARTUP_DEADLINE_EXCEEDED = (
        "StartupDeadlineExceeded",
        "Check the pods' events for what they were waiting for, or raise spec.startupDeadlineSeconds.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "Raise spec.activeDeadlineSeconds, then run `kubectl ddpm retry`: finished samples are kept.",
    )
    OUT_OF_MEMORY = (
        "OutOfMemory",
        "Raise resources.worker.memory (or head.memory), or lower tasksPerGPU, then run `kubectl ddpm retry`.",
    )
    WORKER_LOST = (
        "WorkerLost",
        "Nodes or pods were lost too often; `kubectl ddpm retry` draws the missing samples.",
    )
    HEAD_LOST = (
        "HeadLost",
        "Check what happened to the head pod and its node; `kubectl ddpm retry` draws the missing samples.",
    )
    STORAGE_FAILED = (
        "StorageFailed",
        "Check the free space and the write permissions of the output, then run `kubectl ddpm retry`.",
    )
    OUTPUT_CONFLICT = (
        "OutputConflict",
        "The output holds another sampling's samples: create a new DDPMSampling with another spec.output.uri.",
    )
    DRIVER_FAILED = (
        "DriverFailed",
        "Read failure.logTail or `kubectl ddpm logs`; `kubectl ddpm retry` draws the missing samples.",
    )
    INTERNAL_ERROR = (
        "InternalError",
        "This is a bug in the operator, not in the sampling: please report it with the operator's log.",
    )


class EventReason(StrEnum):
    """The reasons of the Kubernetes events of a sampling; each event is emitted once per transition."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    QUEUED = "Queued"
    CLUSTER_CREATED = "ClusterCreated"
    STARTED = "Started"
    GROWN = "Grown"
    REPAIRING = "Repairing"
    ATTEMPT_FAILED = "AttemptFailed"
    OTHER_HARDWARE = "OtherHardware"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CLUSTER_DELETED = "ClusterDeleted"
