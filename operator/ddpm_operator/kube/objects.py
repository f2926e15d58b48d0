"""Converts Kubernetes objects to the observed types that `reconcile` decides on. Pure.

Watch events, list items and responses to the operator's own requests arrive as JSON. The models here validate the few
fields that the operator uses, and ignore all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ddpm_operator.api import KEPT, ConditionType, Phase
from ddpm_operator.manifests.naming import ATTEMPT, SAMPLING, SAMPLING_UID
from ddpm_operator.reconcile.observed import (
    Container,
    ObservedCluster,
    ObservedPod,
    OutputClaim,
    Running,
    Terminated,
    Waiting,
)
from ddpm_operator.reconcile.placement import HARDWARE_LABELS

_POD_CLUSTER_LABEL = "ray.io/cluster"
_POD_ROLE_LABEL = "ray.io/node-type"
# KubeRay completes a suspension before it acts on a resume: until then the cluster has no usable pods.
_SUSPENSION_CONDITIONS = ("RayClusterSuspending", "RayClusterSuspended")
_PHASES = {phase.value: phase for phase in Phase}
_ROLES: dict[str, Literal["head", "worker"]] = {"head": "head", "worker": "worker"}

OwnedObject = TypeVar("OwnedObject", ObservedCluster, ObservedPod)


@dataclass(frozen=True, order=True)
class ObjectKey:
    """Identifies one DDPMSampling. The uid tells it from an earlier or later one of the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Versioned(Generic[OwnedObject]):
    """An object that belongs to a sampling, at one resourceVersion.

    Attributes:
        owner: the sampling that the object belongs to.
        uid: uid of the object itself.
        version: its resourceVersion. Of two versions of one object, the greater is the later.
        observed: the object in the form that `reconcile` takes.
    """

    owner: ObjectKey
    uid: str
    version: int
    observed: OwnedObject


# Kubernetes treats an absent list and null alike.
_NULL_IS_EMPTY = BeforeValidator(lambda value: () if value is None else value)


class _KubeModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ObjectMeta(_KubeModel):
    """The metadata of any object."""

    name: str
    namespace: str = ""
    uid: str
    resource_version: int
    labels: dict[str, str] | None = None
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None

    def label(self, name: str) -> str:
        """Returns a label's value, or "" without that label."""
        return (self.labels or {}).get(name, "")

    @property
    def key(self) -> ObjectKey | None:
        """The sampling that the object belongs to; None if its labels name no sampling."""
        name, uid = self.label(SAMPLING), self.label(SAMPLING_UID)
        return ObjectKey(self.namespace, name, uid) if name and uid else None

    @property
    def attempt(self) -> int | None:
        """The attempt that the object belongs to; None if its label is not a number."""
        number = self.label(ATTEMPT)
        return int(number) if number.isdecimal() and len(number) < 16 else None


class _OwnerReference(_KubeModel):
    kind: str
    uid: str


class _OwnedObjectMeta(ObjectMeta):
    owner_references: Annotated[tuple[_OwnerReference, ...], _NULL_IS_EMPTY] = ()


class _Condition(_KubeModel):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None

    @property
    def reason_and_message(self) -> str:
        return ": ".join(part for part in (self.reason, self.message) if part)


class _Conditions(_KubeModel):
    conditions: Annotated[tuple[_Condition, ...], _NULL_IS_EMPTY] = ()

    def get(self, condition_type: str) -> _Condition | None:
        return next((one for one in self.conditions if one.type == condition_type), None)

    def is_true(self, condition_type: str) -> bool:
        condition = self.get(condition_type)
        return condition is not None and condition.status == "True"


class _SamplingStatus(_Conditions):
    phase: str = ""


class Sampling(_KubeModel):
    """The fields of a DDPMSampling that metrics need. Validates with any version of the CRD."""

    metadata: ObjectMeta
    status: _SamplingStatus = _SamplingStatus()

    @property
    def key(self) -> ObjectKey:
        """The key of this sampling."""
        return ObjectKey(self.metadata.namespace, self.metadata.name, self.metadata.uid)

    @property
    def phase(self) -> Phase:
        """The phase; Pending if it is unset, as before the first reconcile, or unknown to this release."""
        return _PHASES.get(self.status.phase, Phase.PENDING)

    @property
    def keeps_cluster(self) -> bool:
        """Whether the sampling has ended and keeps its RayCluster for debugging (`keepClusterSeconds`)."""
        cleaned_up = self.status.get(ConditionType.CLEANED_UP)
        return cleaned_up is not None and cleaned_up.reason == KEPT


class _ClusterSpec(_KubeModel):
    suspend: bool | None = None


class _ClusterMeta(ObjectMeta):
    generation: int = 0


class _ClusterStatus(_Conditions):
    observed_generation: int | None = None


class RayCluster(_KubeModel):
    """A RayCluster of KubeRay."""

    metadata: _ClusterMeta
    spec: _ClusterSpec = _ClusterSpec()
    status: _ClusterStatus = _ClusterStatus()

    def versioned(self) -> Versioned[ObservedCluster] | None:
        """Returns the observed cluster; None if it belongs to no sampling."""
        meta, key = self.metadata, self.metadata.key
        if key is None:
            return None
        failure, suspension = self.status.get("ReplicaFailure"), self.status.get("RayClusterSuspended")
        observed = ObservedCluster(
            name=meta.name,
            uid=meta.uid,
            attempt=meta.attempt,
            created=meta.creation_timestamp,
            deleted=meta.deletion_timestamp,
            suspended=bool(self.spec.suspend) or any(map(self.status.is_true, _SUSPENSION_CONDITIONS)),
            resumed_at=suspension.last_transition_time if suspension and suspension.status == "False" else None,
            seen_by_kuberay=self.status.observed_generation == meta.generation,
            replica_failure=failure.message if failure and failure.status == "True" else None,
        )
        return Versioned(key, meta.uid, meta.resource_version, observed)


class _Waiting(_KubeModel):
    reason: str = ""
    message: str = ""


class _Running(_KubeModel):
    started_at: datetime


class _Terminated(_KubeModel):
    reason: str = ""
    exit_code: int
    message: str = ""

    def observed(self) -> Terminated:
        return Terminated(self.reason, self.exit_code, self.message)


class _State(_KubeModel):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None

    def observed(self) -> Waiting | Running | Terminated:
        if self.running:
            return Running(self.running.started_at)
        if self.terminated:
            return self.terminated.observed()
        waiting = self.waiting or _Waiting()
        return Waiting(waiting.reason, waiting.message)


class _Container(_KubeModel):
    name: str
    state: _State = _State()
    last_state: _State = _State()
    image_id: str = Field(default="", alias="imageID")
    restart_count: int = 0

    def observed(self) -> Container:
        ended = self.last_state.terminated
        return Container(
            name=self.name,
            state=self.state.observed(),
            image_id=self.image_id,
            restarts=self.restart_count,
            last_termination=ended.observed() if ended else None,
        )


_Containers = Annotated[tuple[_Container, ...], _NULL_IS_EMPTY]


class _PodStatus(_Conditions):
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    pod_ip: str = Field(default="", alias="podIP")
    reason: str = ""
    message: str = ""
    init_container_statuses: _Containers = ()
    container_statuses: _Containers = ()


class _PodSpec(_KubeModel):
    node_name: str = ""


class RayPod(_KubeModel):
    """A head or worker pod of a RayCluster."""

    metadata: _OwnedObjectMeta
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()

    def versioned(self) -> Versioned[ObservedPod] | None:
        """Returns the observed pod; None if it is not a head or worker of a sampling."""
        meta, key, status = self.metadata, self.metadata.key, self.status
        role = _ROLES.get(meta.label(_POD_ROLE_LABEL))
        if key is None or role is None:
            return None
        scheduled, disruption = status.get("PodScheduled"), status.get("DisruptionTarget")
        observed = ObservedPod(
            name=meta.name,
            uid=meta.uid,
            cluster=meta.label(_POD_CLUSTER_LABEL),
            owner=next((owner.uid for owner in meta.owner_references if owner.kind == "RayCluster"), ""),
            attempt=meta.attempt,
            role=role,
            phase=status.phase,
            ready=status.is_true("Ready"),
            deleted=meta.deletion_timestamp,
            ip=status.pod_ip,
            node=self.spec.node_name,
            reason=status.reason,
            message=status.message,
            disruption=disruption.reason_and_message if disruption and disruption.status == "True" else "",
            scheduled=scheduled.last_transition_time if scheduled and scheduled.status == "True" else None,
            unschedulable=scheduled.message if scheduled and scheduled.reason == "Unschedulable" else None,
            containers=tuple(one.observed() for one in (*status.init_container_statuses, *status.container_statuses)),
        )
        return Versioned(key, meta.uid, meta.resource_version, observed)


class Node(_KubeModel):
    """A node."""

    metadata: ObjectMeta

    def hardware_labels(self) -> dict[str, str]:
        """Returns its labels that decide hardware."""
        return {name: value for name in HARDWARE_LABELS if (value := self.metadata.label(name))}


class _ClaimSpec(_KubeModel):
    access_modes: Annotated[tuple[str, ...], _NULL_IS_EMPTY] = ()


class _ClaimStatus(_KubeModel):
    phase: Literal["Pending", "Bound", "Lost"] = "Pending"


class PersistentVolumeClaim(_KubeModel):
    """The claim for a sampling's output."""

    metadata: _OwnedObjectMeta
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()

    def observed(self) -> OutputClaim:
        return OutputClaim(self.metadata.name, self.status.phase, self.spec.access_modes)

    def is_stale_for(self, key: ObjectKey) -> bool:
        """Whether the claim is being deleted, or will be garbage-collected with an earlier sampling of this name."""
        owners = [owner.uid for owner in self.metadata.owner_references if owner.kind == "DDPMSampling"]
        return self.metadata.deletion_timestamp is not None or any(uid != key.uid for uid in owners)
