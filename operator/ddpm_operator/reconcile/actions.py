"""What the operator can do: a closed list. Each is idempotent, and each may be the last before a crash.

A decision's actions are carried out in their order. One that is refused ends the list; why becomes a `Fault` of
the next look. A `WriteStatus` that meets a newer resource is refused, too, and is no fault: the next look sees
more. An `Event` or a copied preview that cannot be written is logged, ends nothing and is no fault either.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ddpm_operator.api import EventReason, Status
from ddpm_operator.manifests.render import Attempt


@dataclass(frozen=True)
class WriteStatus:
    """Server-side apply of the whole status, on this version of the resource and no newer one.

    Attributes:
        resource_version: of the resource that was observed.
    """

    status: Status
    resource_version: str


@dataclass(frozen=True)
class Event:
    """An entry for `kubectl describe`.

    It follows the status it tells of, so that it is said once or, after a crash between the two, not at all.
    """

    type: Literal["Normal", "Warning"]
    reason: EventReason
    message: str


@dataclass(frozen=True)
class EnsureClaim:
    """Creates the output's claim, or finds it there.

    Attributes:
        attempt: the one that it is created for.
    """

    attempt: Attempt


@dataclass(frozen=True)
class CreateCluster:
    """Creates the attempt's RayCluster, or finds its own there."""

    attempt: Attempt


@dataclass(frozen=True)
class CreateNetworkPolicy:
    """Creates the attempt's NetworkPolicy, or finds it there.

    Attributes:
        cluster_uid: the RayCluster that owns it.
    """

    attempt: Attempt
    cluster_uid: str


@dataclass(frozen=True)
class CreateSecret:
    """Creates the Secret with the attempt's tokens, or finds it there. Before it, no pod of the attempt starts.

    Attributes:
        cluster_uid: the RayCluster that owns it.
    """

    attempt: Attempt
    cluster_uid: str


@dataclass(frozen=True)
class SubmitJob:
    """Submits the Ray job with the attempt's document, and N in the job's own metadata; or finds this id there.

    Attributes:
        id: its submission id.
        head_ip: whom to ask.
    """

    attempt: Attempt
    id: str
    head_ip: str


@dataclass(frozen=True)
class CopyPreview:
    """Fetches ``/grid.png`` from the driver and writes it, if there is one yet, into the preview's ConfigMap."""

    attempt: Attempt
    head_ip: str


@dataclass(frozen=True)
class WritePreview:
    """Writes the preview's ConfigMap, which the sampling owns. The status that follows names it.

    Attributes:
        png: of at most 48 KiB.
    """

    png: bytes


@dataclass(frozen=True)
class DeleteCluster:
    """Deletes a RayCluster of this very uid; what it owns follows. 404 is success."""

    name: str
    uid: str


@dataclass(frozen=True)
class DeleteSampling:
    """Deletes the resource itself, of this very uid and version: its time is up.

    Attributes:
        resource_version: of the resource that was observed.
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
    """What follows from a look.

    Attributes:
        actions: in the order they are carried out.
        look_again: after so long, even if nothing is heard by then; None: only when something changes.
    """

    actions: tuple[Action, ...] = ()
    look_again: timedelta | None = None
