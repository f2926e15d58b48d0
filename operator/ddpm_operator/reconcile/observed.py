"""The observation of one sampling, which is the input of `reconcile`: plain facts without conclusions.

Decisions are safe if the facts are read in this way:

- The DDPMSampling is read last, and from the API server, never from a cache. So its status is at least as new as every
  other fact.
- The RayClusters may come from a cache only if it contains this operator's own creations and deletions.
- The pods and the driver's state may be out of date.
- Ray's jobs are listed before the driver's progress is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from ddpm_operator.api import DDPMSampling
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import UNLIMITED, Limits
from ddpm_operator.reconcile.progress_document import ProgressDocument

JobState = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


@dataclass(frozen=True)
class ObservedCluster:
    """A RayCluster of this sampling.

    Attributes:
        attempt: number from its label; None if the label contains none.
        created, deleted: its creationTimestamp and deletionTimestamp.
        suspended: through its spec.suspend, as Kueue does, including the time until KubeRay has resumed it.
        resumed_at: when KubeRay last resumed it, or first reconciled it.
        seen_by_kuberay: KubeRay has reconciled the present spec, according to its observedGeneration.
        replica_failure: message of KubeRay's condition ReplicaFailure, while it is True.
        has_secret, has_network_policy: whether this operator has created them. The operator may not read Secrets, so
            after a restart it creates them again, unless the head runs. The second request finds them.
    """

    name: str
    uid: str
    attempt: int | None
    created: datetime
    deleted: datetime | None = None
    suspended: bool = False
    resumed_at: datetime | None = None
    seen_by_kuberay: bool = False
    replica_failure: str | None = None
    has_secret: bool = False
    has_network_policy: bool = False


@dataclass(frozen=True)
class Waiting:
    """A container that has not started, such as one whose image is being pulled."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """A container that runs."""

    started: datetime


@dataclass(frozen=True)
class Terminated:
    """A container that has terminated.

    Attributes:
        reason: the kubelet's, such as OOMKilled.
        message: why it could not be started, or the end of its log.
    """

    reason: str
    exit_code: int
    message: str = ""


@dataclass(frozen=True)
class Container:
    """A container or init container.

    Attributes:
        image_id: the kubelet's reference with a digest; "" before the image is pulled.
        restarts: restartCount.
        last_termination: lastState.terminated, how the container ended before its last restart.
    """

    name: str
    state: Waiting | Running | Terminated
    image_id: str = ""
    restarts: int = 0
    last_termination: Terminated | None = None


@dataclass(frozen=True)
class ObservedPod:
    """A pod of this sampling.

    Attributes:
        cluster: name of its RayCluster.
        owner: uid of the RayCluster that owns it; "" if none does.
        attempt: number from its label; None if the label contains none.
        ready: its condition Ready.
        scheduled: when its condition PodScheduled became True.
        deleted: its deletionTimestamp.
        ip: "" while it has none.
        node: name of its node; "" while it has none.
        reason, message: of the pod itself, such as Evicted.
        disruption: reason and message of its condition DisruptionTarget, such as preemption or a node drain.
        unschedulable: message of the condition PodScheduled while its reason is Unschedulable.
        containers: init containers first.
    """

    name: str
    uid: str
    cluster: str
    attempt: int | None
    role: Literal["head", "worker"]
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]
    ready: bool = False
    scheduled: datetime | None = None
    deleted: datetime | None = None
    ip: str = ""
    node: str = ""
    reason: str = ""
    message: str = ""
    owner: str = ""
    disruption: str = ""
    unschedulable: str | None = None
    containers: tuple[Container, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether its phase is terminal: it does not run, and never will again."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class OutputClaim:
    """The PersistentVolumeClaim of the output, created by the operator or by the user."""

    name: str
    phase: Literal["Pending", "Bound", "Lost"]
    access_modes: tuple[str, ...]


@dataclass(frozen=True)
class RayJob:
    """A Ray job in the attempt's cluster.

    Attributes:
        id: the submission id.
        samples: spec.samples at its submission, from the metadata of the job.
        message: from Ray.
        log: the end of the driver's log, at most a few KiB; read only for a last job that has failed.
    """

    id: str
    state: JobState
    samples: int
    message: str = ""
    log: str = ""


@dataclass(frozen=True)
class HeadUnreachable:
    """The head was polled and did not answer, although it is ready or its driver was Running.

    In the second case the pod need not be ready: on a node that is gone, the pod object remains until it is deleted.

    Attributes:
        since: time of the first poll of an uninterrupted series of failed ones, as far as this operator remembers.
        message: the error.
    """

    since: datetime
    message: str = ""


@dataclass(frozen=True)
class HeadResponse:
    """The response of the head to a poll.

    Attributes:
        jobs: those that the operator has submitted, in order; users may have submitted others.
        progress: None if no driver serves it.
    """

    jobs: tuple[RayJob, ...] = ()
    progress: ProgressDocument | None = None


class ActionErrorKind(StrEnum):
    """Why the API server, a template or the head rejected an action."""

    KUBERAY_MISSING = "KubeRayMissing"  # the cluster has no CRD for this version of RayCluster
    KUBERAY_TOO_OLD = "KubeRayTooOld"  # its CRD lacks a field of the manifest
    QUOTA = "Quota"  # 403, exceeded quota
    FORBIDDEN = "Forbidden"  # rejected by a policy, a webhook or Pod Security
    OPERATOR_FORBIDDEN = "OperatorForbidden"  # RBAC denies the operator, as during an upgrade of its chart
    INVALID = "Invalid"  # 400 and 422 otherwise
    WEBHOOK_UNAVAILABLE = "WebhookUnavailable"  # an admission webhook does not answer
    NOT_FOUND = "NotFound"  # an object that the manifest refers to
    NAME_TAKEN = "NameTaken"  # an object of this name exists, and another client created it
    TEMPLATE = "Template"  # TemplateError
    HEAD_WITHOUT_AUTH = "HeadWithoutAuth"  # the head accepts requests without a token
    PREVIEW = "Preview"  # the preview could not be written, for any reason; nothing depends on it
    TRANSIENT = "Transient"  # 429, 5xx, the network


@dataclass(frozen=True)
class ActionError:
    """An action that was rejected.

    Attributes:
        attempted_action: a phrase that follows "cannot", such as `create the RayCluster digits-1a2b3c4d-1`.
        message: the error of the API server or the template.
    """

    kind: ActionErrorKind
    attempted_action: str
    message: str


@dataclass(frozen=True)
class Observed:
    """All facts about one sampling that a reconcile pass uses.

    Attributes:
        sampling: the resource, with the previous status.
        image: the default image, for a sampling without spec.image.
        clusters, pods: those of all attempts, including those that are being deleted.
        last_deleted_head: the last state of the head pod that was deleted last, if this operator saw its deletion.
        claim: the claim of the output; None if it does not exist, or if the output is not a claim.
        head_poll: None if the head was not polled.
        preview_attempted_at: when this operator last tried to write the preview; None if it does not remember.
        preview_written: whether it has written the preview.
        action_errors: the rejected actions of the previous pass.
        limits: the administrator's limits.
        blocked_by: name of another sampling in the namespace that has its head, and whose workers a full quota keeps
            out. Its cluster is the oldest of all clusters of the namespace in that state, this sampling's included.
        node_labels: the labels that decide hardware, of those nodes in
            `ddpm_operator.reconcile.placement.nodes_to_read` that the operator could read.
        admission_hold: why the operator's own admission lets no attempt begin now, as a sentence; None if it may begin.
    """

    sampling: DDPMSampling
    image: WorkerImage
    clusters: tuple[ObservedCluster, ...] = ()
    pods: tuple[ObservedPod, ...] = ()
    last_deleted_head: ObservedPod | None = None
    claim: OutputClaim | None = None
    head_poll: HeadUnreachable | HeadResponse | None = None
    preview_attempted_at: datetime | None = None
    preview_written: bool = False
    action_errors: tuple[ActionError, ...] = ()
    limits: Limits = UNLIMITED
    blocked_by: str | None = None
    node_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    admission_hold: str | None = None

    @property
    def cluster(self) -> ObservedCluster | None:
        """The RayCluster of the active attempt; None if there is none, or if it is being deleted."""
        status = self.sampling.status
        name = status.cluster.name if status and status.cluster else None
        return next((it for it in self.clusters if it.name == name and not it.deleted), None)

    @property
    def head(self) -> ObservedPod | None:
        """The head pod of `cluster`, unless it is being deleted or has finished."""
        heads = (pod for pod in self.cluster_pods if pod.role == "head")
        return next((pod for pod in heads if not pod.deleted and not pod.finished), None)

    @property
    def pollable_head(self) -> ObservedPod | None:
        """The head, if it can be polled for its jobs and progress; else None.

        A running head is polled before it is ready: Ray accepts jobs a second before the kubelet's probe succeeds.
        """
        head = self.head
        return head if head and head.phase == "Running" and head.ip else None

    @property
    def cluster_pods(self) -> tuple[ObservedPod, ...]:
        """The pods of `cluster`, including those that are being deleted."""
        cluster = self.cluster
        if cluster is None:
            return ()
        return tuple(it for it in self.pods if it.cluster == cluster.name and it.owner in ("", cluster.uid))
