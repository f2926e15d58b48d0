"""From the API server's objects to the plain facts that decisions are taken on. Pure."""

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

_CLUSTER_OF_POD = "ray.io/cluster"
_ROLE_OF_POD = "ray.io/node-type"
# KubeRay finishes what it has begun: a cluster that is let in again has no pods before it has lost those it had.
_NO_PODS = ("RayClusterSuspending", "RayClusterSuspended")
_PHASES = {phase.value: phase for phase in Phase}
_ROLES: dict[str, Literal["head", "worker"]] = {"head": "head", "worker": "worker"}

Fact = TypeVar("Fact", ObservedCluster, ObservedPod)


@dataclass(frozen=True, order=True)
class ObjectKey:
    """One sampling, and no later one of the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Versioned(Generic[Fact]):
    """An object that belongs to a sampling, as it was at one moment.

    Attributes:
        of: whose it is.
        uid: the object's own.
        version: its resourceVersion; of two sights of one object, the greater is the later.
    """

    of: ObjectKey
    uid: str
    version: int
    fact: Fact


# An absent list or text and a null are the same to Kubernetes.
_NULL_IS_EMPTY = BeforeValidator(lambda value: () if value is None else value)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ObjectMeta(_Part):
    """What every object has."""

    name: str
    namespace: str = ""
    uid: str
    resource_version: int
    labels: dict[str, str] | None = None
    creation_timestamp: datetime
    deletion_timestamp: datetime | None = None

    def label(self, name: str) -> str:
        """A label's value; "" where it is not there."""
        return (self.labels or {}).get(name, "")

    @property
    def key(self) -> ObjectKey | None:
        """The sampling it belongs to; None if its labels name none."""
        name, uid = self.label(SAMPLING), self.label(SAMPLING_UID)
        return ObjectKey(self.namespace, name, uid) if name and uid else None

    @property
    def attempt(self) -> int | None:
        """The attempt it belongs to; None if its label is no number."""
        number = self.label(ATTEMPT)
        return int(number) if number.isdecimal() and len(number) < 16 else None


class _OwnerReference(_Part):
    kind: str
    uid: str


class _OwnedMeta(ObjectMeta):
    owner_references: Annotated[tuple[_OwnerReference, ...], _NULL_IS_EMPTY] = ()


class _Condition(_Part):
    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None

    @property
    def sentence(self) -> str:
        return ": ".join(part for part in (self.reason, self.message) if part)


class _Conditions(_Part):
    conditions: Annotated[tuple[_Condition, ...], _NULL_IS_EMPTY] = ()

    def get(self, kind: str) -> _Condition | None:
        return next((one for one in self.conditions if one.type == kind), None)

    def holds(self, kind: str) -> bool:
        found = self.get(kind)
        return found is not None and found.status == "True"


class _SamplingStatus(_Conditions):
    phase: str = ""


class Sampling(_Part):
    """A DDPMSampling as far as it is counted: of whatever version its CRD is."""

    metadata: ObjectMeta
    status: _SamplingStatus = _SamplingStatus()

    @property
    def key(self) -> ObjectKey:
        """The sampling itself."""
        return ObjectKey(self.metadata.namespace, self.metadata.name, self.metadata.uid)

    @property
    def phase(self) -> Phase:
        """One that is not known is Pending, as one that was not looked at yet."""
        return _PHASES.get(self.status.phase, Phase.PENDING)

    @property
    def keeps_cluster(self) -> bool:
        """It has ended, and its RayCluster is kept for a look into the failure."""
        cleaned_up = self.status.get(ConditionType.CLEANED_UP)
        return cleaned_up is not None and cleaned_up.reason == KEPT


class _ClusterSpec(_Part):
    suspend: bool | None = None


class _ClusterMeta(ObjectMeta):
    generation: int = 0


class _ClusterStatus(_Conditions):
    observed_generation: int | None = None


class RayCluster(_Part):
    """As KubeRay keeps it."""

    metadata: _ClusterMeta
    spec: _ClusterSpec = _ClusterSpec()
    status: _ClusterStatus = _ClusterStatus()

    def sight(self) -> Versioned[ObservedCluster] | None:
        """None if it belongs to no sampling."""
        meta, key = self.metadata, self.metadata.key
        if key is None:
            return None
        failure, suspension = self.status.get("ReplicaFailure"), self.status.get("RayClusterSuspended")
        fact = ObservedCluster(
            name=meta.name,
            uid=meta.uid,
            attempt=meta.attempt,
            created=meta.creation_timestamp,
            deleted=meta.deletion_timestamp,
            suspended=bool(self.spec.suspend) or any(map(self.status.holds, _NO_PODS)),
            resumed=suspension.last_transition_time if suspension and suspension.status == "False" else None,
            heeded=self.status.observed_generation == meta.generation,
            replica_failure=failure.message if failure and failure.status == "True" else None,
        )
        return Versioned(key, meta.uid, meta.resource_version, fact)


class _Waiting(_Part):
    reason: str = ""
    message: str = ""


class _Running(_Part):
    started_at: datetime


class _Terminated(_Part):
    reason: str = ""
    exit_code: int
    message: str = ""

    def fact(self) -> Terminated:
        return Terminated(self.reason, self.exit_code, self.message)


class _State(_Part):
    waiting: _Waiting | None = None
    running: _Running | None = None
    terminated: _Terminated | None = None

    def fact(self) -> Waiting | Running | Terminated:
        if self.running:
            return Running(self.running.started_at)
        if self.terminated:
            return self.terminated.fact()
        waiting = self.waiting or _Waiting()
        return Waiting(waiting.reason, waiting.message)


class _Container(_Part):
    name: str
    state: _State = _State()
    last_state: _State = _State()
    image_id: str = Field(default="", alias="imageID")
    restart_count: int = 0

    def fact(self) -> Container:
        ended = self.last_state.terminated
        return Container(
            name=self.name,
            state=self.state.fact(),
            image_id=self.image_id,
            restarts=self.restart_count,
            last_end=ended.fact() if ended else None,
        )


_Containers = Annotated[tuple[_Container, ...], _NULL_IS_EMPTY]


class _PodStatus(_Conditions):
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    pod_ip: str = Field(default="", alias="podIP")
    reason: str = ""
    message: str = ""
    init_container_statuses: _Containers = ()
    container_statuses: _Containers = ()


class RayPod(_Part):
    """A pod as the kubelet keeps it."""

    metadata: _OwnedMeta
    status: _PodStatus = _PodStatus()

    def sight(self) -> Versioned[ObservedPod] | None:
        """None if it is no head or worker of a sampling."""
        meta, key, status = self.metadata, self.metadata.key, self.status
        role = _ROLES.get(meta.label(_ROLE_OF_POD))
        if key is None or role is None:
            return None
        scheduled, disruption = status.get("PodScheduled"), status.get("DisruptionTarget")
        fact = ObservedPod(
            name=meta.name,
            uid=meta.uid,
            cluster=meta.label(_CLUSTER_OF_POD),
            owner=next((owner.uid for owner in meta.owner_references if owner.kind == "RayCluster"), ""),
            attempt=meta.attempt,
            role=role,
            phase=status.phase,
            ready=status.holds("Ready"),
            deleted=meta.deletion_timestamp,
            ip=status.pod_ip,
            reason=status.reason,
            message=status.message,
            disruption=disruption.sentence if disruption and disruption.status == "True" else "",
            scheduled=scheduled.last_transition_time if scheduled and scheduled.status == "True" else None,
            unschedulable=scheduled.message if scheduled and scheduled.reason == "Unschedulable" else None,
            containers=tuple(one.fact() for one in (*status.init_container_statuses, *status.container_statuses)),
        )
        return Versioned(key, meta.uid, meta.resource_version, fact)


class _ClaimSpec(_Part):
    access_modes: Annotated[tuple[str, ...], _NULL_IS_EMPTY] = ()


class _ClaimStatus(_Part):
    phase: Literal["Pending", "Bound", "Lost"] = "Pending"


class PersistentVolumeClaim(_Part):
    """As the API server keeps it."""

    metadata: _OwnedMeta
    spec: _ClaimSpec = _ClaimSpec()
    status: _ClaimStatus = _ClaimStatus()

    def fact(self) -> OutputClaim:
        return OutputClaim(self.metadata.name, self.status.phase, self.spec.access_modes)

    def goes_before(self, key: ObjectKey) -> bool:
        """It is being deleted, or will be with a former sampling of the same name that owns it."""
        owners = [owner.uid for owner in self.metadata.owner_references if owner.kind == "DDPMSampling"]
        return self.metadata.deletion_timestamp is not None or any(uid != key.uid for uid in owners)
