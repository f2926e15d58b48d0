"""The actions of the operator: a closed list. Each is idempotent, and the operator may crash after any of them.

The actions of a decision are executed in order. A rejected action ends the list, and the next pass observes the reason
as an `ActionError`. A `WriteStatus` that conflicts with a newer resource also ends the list, but is no error: the next
pass observes the newer resource. An `Event` or a copied preview that cannot be written is logged, and the list goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ddpm_operator.api import EventReason, Status
from ddpm_operator.manifests.render import Attempt


@dataclass(frozen=True)
class WriteStatus:
    """Applies the whole status (server-side apply), if the resource still has the given version.

    Attributes:
        resource_version: that of the observed resource.
    """

    status: Status
    resource_version: str


@dataclass(frozen=True)
class Event:
    """A Kubernetes event, as `kubectl describe` shows it.

    It follows the write of the status that it belongs to: it is created once or, after a crash between the two, never.
    """

    type: Literal["Normal", "Warning"]
    reason: EventReason
    message: str


@dataclass(frozen=True)
class EnsureClaim:
    """Creates the PersistentVolumeClaim for the output, unless it exists."""

    attempt: Attempt


@dataclass(frozen=True)
class CreateCluster:
    """Creates the attempt's RayCluster, unless it exists."""

    attempt: Attempt


@dataclass(frozen=True)
class CreateNetworkPolicy:
    """Creates the attempt's NetworkPolicy, unless it exists.

    Attributes:
        cluster_uid: uid of the RayCluster that owns it.
    """

    attempt: Attempt
    cluster_uid: str


@dataclass(frozen=True)
class CreateSecret:
    """Creates the Secret with the attempt's tokens, unless it exists. The attempt's pods cannot start without it.

    Attributes:
        cluster_uid: uid of the RayCluster that owns it.
    """

    attempt: Attempt
    cluster_uid: str


@dataclass(frozen=True)
class SubmitJob:
    """Submits the driver as a Ray job, unless a job with this id exists. Its metadata contain spec.samples.

    Attributes:
        id: the submission id.
        head_ip: address of the head pod.
    """

    attempt: Attempt
    id: str
    head_ip: str


@dataclass(frozen=True)
class CopyPreview:
    """Fetches ``/grid.png`` from the driver and writes it into the preview's ConfigMap, once samples are stored."""

    attempt: Attempt
    head_ip: str


@dataclass(frozen=True)
class WritePreview:
    """Writes the preview's ConfigMap, which the sampling owns. The status that is written after it names it.

    Attributes:
        png: at most `MAX_PREVIEW_BYTES`.
    """

    png: bytes


@dataclass(frozen=True)
class DeleteCluster:
    """Deletes a RayCluster, if it has this uid, and with it the objects that it owns. 404 is success."""

    name: str
    uid: str


@dataclass(frozen=True)
class DeleteSampling:
    """Deletes the DDPMSampling, if it still has the observed uid and version: its TTL is over.

    Attributes:
        resource_version: that of the observed resource.
    """

    resource_version: str


Action = (
    WriteStatus
    | Event
    | EnsureClaim
    | CreateCluster
    | CreateNetworkPolicy
    | CreateSecret
    | SubmitJob
    | CopyPreview
    | WritePreview
    | DeleteCluster
    | DeleteSampling
)


@dataclass(frozen=True)
class Decision:
    """The result of a reconcile pass.

    Attributes:
        actions: in the order of their execution.
        requeue_after: time until the next pass if no watch event arrives; None for no such pass.
    """

    actions: tuple[Action, ...] = ()
    requeue_after: timedelta | None = None
