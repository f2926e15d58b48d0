"""What is seen of one sampling at one look: plain facts, before anybody thinks about them.

How they are to be read, so that decisions taken on them are safe:

- The resource is read last, and from the API server, never from a cache: its status is then at least as new as
  everything else that is seen.
- The RayClusters may come from a cache only if that has this operator's own creations and deletions in it.
- The pods, and what the driver says, may be late.
- The driver's jobs are listed before its progress is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        attempt: from its label; None if there is no number in it.
        created, deleted: its creationTimestamp and deletionTimestamp.
        suspended: by spec.suspend, as Kueue sets it, or not quite back from that.
        resumed: when KubeRay last ended a suspension, or else began with the cluster.
        heeded: KubeRay has acted on the spec as it is now, which its observedGeneration tells.
        replica_failure: message of KubeRay's condition ReplicaFailure while that is True.
        has_secret, has_network_policy: the attempt's are known to be there. After a restart the operator, which
            may not read secrets, does not know it before the head runs: one more create finds them.
    """

    name: str
    uid: str
    attempt: int | None
    created: datetime
    deleted: datetime | None = None
    suspended: bool = False
    resumed: datetime | None = None
    heeded: bool = False
    replica_failure: str | None = None
    has_secret: bool = False
    has_network_policy: bool = False


@dataclass(frozen=True)
class Waiting:
    """A container that has not started, such as for its image."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """A container that runs."""

    started: datetime


@dataclass(frozen=True)
class Terminated:
    """A container that has ended; OOMKilled is a reason.

    Attributes:
        message: why it could not be started, or the end of its log.
    """

    reason: str
    exit_code: int
    message: str = ""


@dataclass(frozen=True)
class Container:
    """A container or init container.

    Attributes:
        image_id: with the digest, as the kubelet gives it; "" before it was pulled.
        restarts: restartCount.
        last_end: lastState.terminated, of the container before the last restart.
    """

    name: str
    state: Waiting | Running | Terminated
    image_id: str = ""
    restarts: int = 0
    last_end: Terminated | None = None


@dataclass(frozen=True)
class ObservedPod:
    """A pod of this sampling.

    Attributes:
        cluster: name of its RayCluster.
        owner: uid of that; "" if it has no owner.
        attempt: from its label; None if there is no number in it.
        ready: its condition Ready.
        scheduled: when its condition PodScheduled turned True.
        deleted: its deletionTimestamp.
        ip: "" while it has none.
        reason, message: of the pod itself, such as Evicted.
        disruption: why others have ended it, such as for a pod of more priority or a node that is emptied: reason
            and message of the condition DisruptionTarget.
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
    reason: str = ""
    message: str = ""
    owner: str = ""
    disruption: str = ""
    unschedulable: str | None = None
    containers: tuple[Container, ...] = ()

    @property
    def over(self) -> bool:
        """It runs no more, and never will."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True)
class OutputClaim:
    """The claim the samples go to, whoever made it."""

    name: str
    phase: Literal["Pending", "Bound", "Lost"]
    access_modes: tuple[str, ...]


@dataclass(frozen=True)
class RayJob:
    """A Ray job in the attempt's cluster.

    Attributes:
        id: its submission id.
        samples: N of the document it was submitted with, from the job's own metadata.
        message: Ray's.
        log: end of the driver's log, at most a few KiB; read only of the last job, once it has given up.
    """

    id: str
    state: JobState
    samples: int
    message: str = ""
    log: str = ""


@dataclass(frozen=True)
class HeadUnreachable:
    """A head that is ready was asked and did not answer, or one that has been at work.

    The latter need not be ready: of a node that is gone nobody may take the pod away.

    Attributes:
        since: the first of the questions in a row without an answer, as far as this operator remembers.
        message: what came instead.
    """

    since: datetime
    message: str = ""


@dataclass(frozen=True)
class HeadResponse:
    """What the head answered.

    Attributes:
        jobs: the operator's own, by their number; a user may have submitted others.
        progress: None if no driver serves it just now.
    """

    jobs: tuple[RayJob, ...] = ()
    progress: ProgressDocument | None = None


class ActionErrorKind(StrEnum):
    """Why the API server, a template or the head did not let an action be carried out."""

    KUBERAY_MISSING = "KubeRayMissing"  # there is no RayCluster of this version
    KUBERAY_TOO_OLD = "KubeRayTooOld"  # it does not know a field of the manifest
    QUOTA = "Quota"  # 403, exceeded quota
    FORBIDDEN = "Forbidden"  # a policy, a webhook, Pod Security
    NO_RIGHT = "NoRight"  # the operator's own account lacks it, as while its chart is installed anew
    INVALID = "Invalid"  # 400 and 422 otherwise
    WEBHOOK_AWAY = "WebhookAway"  # one that has a say in it does not answer
    NOT_FOUND = "NotFound"  # something that the object refers to
    TAKEN = "Taken"  # an object of this name is there, and it is not ours
    TEMPLATE = "Template"  # TemplateFault
    OPEN_HEAD = "OpenHead"  # whoever reaches it may run what they like there
    PREVIEW = "Preview"  # the preview could not be written, for whatever reason; nothing else needs it
    TRANSIENT = "Transient"  # 429, 5xx, the network


@dataclass(frozen=True)
class ActionError:
    """An action that could not be carried out.

    Attributes:
        doing: what was tried, to go after "cannot": `create the RayCluster digits-1a2b3c4d-1`.
        message: what the API server or the template said.
    """

    kind: ActionErrorKind
    doing: str
    message: str


@dataclass(frozen=True)
class Observed:
    """All that is seen of one sampling.

    Attributes:
        sampling: with its former status.
        image: what pods run if the sampling does not say.
        clusters, pods: of all attempts, those that are going away included.
        departed: the last head pod that is gone, as it was in the end, if this operator has heard of that.
        claim: the output's; None if it is not there, or the output is no claim.
        driver: None if the head was not asked.
        preview_tried: when this operator last tried to write the preview; None if it does not remember.
        preview_written: it did so with success.
        faults: of the actions of the look before this one, none of them carried out since.
        limits: what samplings may name.
        ahead: name of another sampling of the namespace that has a head, whose workers a full quota keeps out; of
            all such in the namespace, this one's cluster included, that with the oldest cluster.
        held_back: why no attempt may begin now, in a sentence; None if one may.
    """

    sampling: DDPMSampling
    image: WorkerImage
    clusters: tuple[ObservedCluster, ...] = ()
    pods: tuple[ObservedPod, ...] = ()
    departed: ObservedPod | None = None
    claim: OutputClaim | None = None
    driver: HeadUnreachable | HeadResponse | None = None
    preview_tried: datetime | None = None
    preview_written: bool = False
    faults: tuple[ActionError, ...] = ()
    limits: Limits = UNLIMITED
    ahead: str | None = None
    held_back: str | None = None

    @property
    def cluster(self) -> ObservedCluster | None:
        """The RayCluster of the attempt that is under way; None if there is none, or it is going away."""
        status = self.sampling.status
        name = status.cluster.name if status and status.cluster else None
        return next((it for it in self.clusters if it.name == name and not it.deleted), None)

    @property
    def head(self) -> ObservedPod | None:
        """Its head pod, unless that is going away or over."""
        heads = (pod for pod in self.cluster_pods if pod.role == "head")
        return next((pod for pod in heads if not pod.deleted and not pod.over), None)

    @property
    def head_to_ask(self) -> ObservedPod | None:
        """The head whose jobs and progress are worth asking for; None if there is nobody to ask.

        One that runs is asked before it is ready: the kubelet's probe finds out a second after Ray takes jobs.
        """
        head = self.head
        return head if head and head.phase == "Running" and head.ip else None

    @property
    def cluster_pods(self) -> tuple[ObservedPod, ...]:
        """Its pods, those that are going away included."""
        cluster = self.cluster
        if cluster is None:
            return ()
        return tuple(it for it in self.pods if it.cluster == cluster.name and it.owner in ("", cluster.uid))
