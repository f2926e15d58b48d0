"""Decides which samplings may start, and which have to wait for others. Two independent rules:

- **The administrator's limit** (`atOnce`, `atOncePerNamespace` in the chart). A sampling holds a slot from the
  moment its status names a cluster until all of that cluster is gone. A free slot goes to the namespace that holds the
  fewest slots; among equals, to the one whose last attempt started longest ago; within a namespace, to the oldest
  sampling.
- **A full ResourceQuota.** When several samplings of a namespace have a head but the quota has no room for their
  workers, all but the one with the oldest cluster yield, see `blocked_by`.

Both are derived from the statuses and the clusters alone, so a restarted operator comes to the same decisions.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ddpm_operator.api import GROUP, KIND, VERSION, WAITING_FOR_HARDWARE, ConditionType, DDPMSampling, Phase
from ddpm_operator.api.conditions import condition
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.kube.responses import Document
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import Decision, WriteStatus
from ddpm_operator.reconcile.attempts import waits_for
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod
from ddpm_operator.reconcile.quota import waits_for_workers
from ddpm_operator.text import count

# Kubernetes omits these fields in the items of some lists.
_TYPE_META: Document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class QueueEntry:
    """What the admission queue knows about a sampling.

    Attributes:
        version: resourceVersion that the entry is derived from.
        created: creationTimestamp of the sampling.
        last_start: when its last attempt was admitted; None if it never was.
        holds_slot: whether it counts against the limit.
        is_waiting: whether it waits for a slot.
    """

    version: int
    created: datetime
    last_start: datetime | None
    holds_slot: bool
    is_waiting: bool


def queue_entry(sampling: DDPMSampling) -> QueueEntry:
    """Returns the queue entry that follows from a sampling's own status."""
    metadata, status = sampling.metadata, sampling.status
    cluster = status.cluster if status else None
    starts = [time for time in (cluster and cluster.start_time, status and status.start_time) if time]
    cleaned_up = condition(status, ConditionType.CLEANED_UP)
    # The status of a sampling that is being deleted is no longer written. Whether it holds a slot then depends only
    # on the clusters that it still owns, see AdmissionQueue._holders.
    is_deleted = metadata.deletion_timestamp is not None
    is_cleaning_up = cleaned_up is not None and cleaned_up.status == "False"
    is_queued = status is not None and status.phase is Phase.QUEUED and cluster is None
    # It asks for a slot when its pause is over, and must not keep others waiting until then.
    pauses = status is not None and waits_for(status, WAITING_FOR_HARDWARE)
    return QueueEntry(
        version=int(metadata.resource_version),
        created=metadata.creation_timestamp or _NEVER,
        last_start=max(starts, default=None),
        holds_slot=not is_deleted and (cluster is not None or is_cleaning_up),
        is_waiting=is_queued and not pauses and not sampling.spec.suspend and not is_deleted,
    )


def next_to_start(
    limits: Limits,
    holders: Collection[ObjectKey],
    waiting: Mapping[ObjectKey, QueueEntry],
    last_starts: Mapping[str, datetime],
) -> tuple[ObjectKey, ...]:
    """Returns the waiting samplings that may start now, in the order in which they get the free slots.

    Args:
        holders: samplings that hold a slot.
        waiting: samplings that wait for one.
        last_starts: by namespace, when its last attempt started.
    """
    slots_held = Counter(key.namespace for key in holders)
    queues: dict[str, deque[ObjectKey]] = {}
    for key in sorted(waiting, key=lambda it: (waiting[it].created, it)):
        queues.setdefault(key.namespace, deque()).append(key)
    admitted: list[ObjectKey] = []
    while limits.at_once is None or slots_held.total() < limits.at_once:
        per_namespace = limits.at_once_per_namespace
        eligible = [it for it in queues if queues[it] and (per_namespace is None or slots_held[it] < per_namespace)]
        if not eligible:
            break
        namespace = min(
            eligible,
            key=lambda it: (slots_held[it], last_starts.get(it, _NEVER), waiting[queues[it][0]].created, it),
        )
        admitted.append(queues[namespace].popleft())
        slots_held[namespace] += 1
    return tuple(admitted)


class AdmissionQueue:
    """Tracks which samplings hold a slot of the administrator's limit and which wait for one.

    No slot is given twice: `reserve` counts a sampling as a holder as soon as its start is decided, before its status
    says so, until a newer version of the resource is observed.

    Args:
        limits: without a limit on concurrency, no sampling ever waits and nothing is tracked.
        cluster_owners: returns the samplings that have a RayCluster, including keys of samplings that were deleted or
            never existed: users can write the labels that a key is read from.
    """

    def __init__(self, limits: Limits, cluster_owners: Callable[[], Collection[ObjectKey]]) -> None:
        self._limits = limits
        self._cluster_owners = cluster_owners
        self._entries: dict[ObjectKey, QueueEntry] = {}
        # Deleted samplings, which hold their slot as long as their RayCluster exists.
        self._deleted: set[ObjectKey] = set()
        self._reserved: set[ObjectKey] = set()
        self._already_woken: set[ObjectKey] = set()

    @property
    def enabled(self) -> bool:
        """Whether the administrator limits the number of concurrent samplings."""
        return (self._limits.at_once, self._limits.at_once_per_namespace) != (None, None)

    def observe_document(self, document: Document) -> None:
        """Updates the entry of a sampling from a watch event or a list, unless a newer version is known."""
        if not self.enabled:
            return
        try:
            sampling = decode_sampling(_TYPE_META | document)
        except SchemaMismatch:
            return  # its reconcile reports that, and starts nothing
        entry = self._entries.get(_key(sampling))
        if entry is None or entry.version < int(sampling.metadata.resource_version):
            self.observe(sampling)

    def observe(self, sampling: DDPMSampling) -> None:
        """Updates the entry of a sampling that was just read from, or written to, the API server."""
        if self.enabled:
            key = _key(sampling)
            self._entries[key] = queue_entry(sampling)
            self._reserved.discard(key)

    def remove(self, key: ObjectKey) -> None:
        """Removes a sampling that no longer exists. Its slot becomes free once its RayCluster is gone."""
        if self._entries.pop(key, None):
            self._deleted.add(key)
        self._reserved.discard(key)

    def waiting_reason(self, key: ObjectKey) -> str | None:
        """Returns why a sampling that is ready to start has to wait, as a sentence; None if it may start."""
        if not self.enabled or key in self._next_to_start(key):
            return None
        limits, namespace = self._limits, key.namespace
        ahead = [*self._holders(), *self._next_to_start(key)]
        ahead_in_namespace = sum(it.namespace == namespace for it in ahead)
        if limits.at_once_per_namespace is not None and ahead_in_namespace >= limits.at_once_per_namespace:
            limit, scope = limits.at_once_per_namespace, " in a namespace"
        else:
            limit, scope = limits.at_once or 0, ""
        return f"Waiting for a free slot: the administrator allows {count(limit, 'sampling')} at once{scope}."

    def reserve(self, key: ObjectKey, decision: Decision) -> None:
        """Reserves a slot if the decision starts an attempt. Call this before executing any of its actions."""
        statuses = [action.status for action in decision.actions if isinstance(action, WriteStatus)]
        if self.enabled and any(status.cluster for status in statuses):
            self._reserved.add(key)

    def take_admissible(self) -> tuple[ObjectKey, ...]:
        """Returns the waiting samplings that have become eligible to start since the last call."""
        if not self.enabled:
            return ()
        admissible = self._next_to_start()
        new = tuple(key for key in admissible if key not in self._already_woken)
        self._already_woken = set(admissible)
        return new

    def _holders(self) -> set[ObjectKey]:
        cluster_owners = {*self._cluster_owners()}
        self._deleted &= cluster_owners
        holders = {key for key, entry in self._entries.items() if entry.holds_slot} | self._reserved
        return holders | self._deleted | (cluster_owners & self._entries.keys())

    def _next_to_start(self, candidate: ObjectKey | None = None) -> tuple[ObjectKey, ...]:
        """Returns the samplings that may start now.

        Args:
            candidate: a sampling to treat as waiting, although its status does not say so yet.
        """
        holders = self._holders()
        waiting = {
            key: entry
            for key, entry in self._entries.items()
            if (entry.is_waiting or key == candidate) and key not in holders
        }
        last_starts: dict[str, datetime] = {}
        for key, entry in self._entries.items():
            last = last_starts.get(key.namespace, _NEVER)
            last_starts[key.namespace] = max(last, entry.last_start or _NEVER)
        return next_to_start(self._limits, holders, waiting, last_starts)


def blocked_by(key: ObjectKey, clusters: ObjectCache[ObservedCluster], pods: ObjectCache[ObservedPod]) -> str | None:
    """Returns the sampling to which this one yields while a full ResourceQuota keeps out the workers of both.

    Returns:
        the name of the sampling with the oldest cluster among those in the namespace that have only a head because of
        the quota; None if there is none or it is this one.
    """
    waiting = [
        (cluster.created, owner)
        for owner in clusters.owners()
        if owner.namespace == key.namespace
        for cluster in clusters.for_sampling(owner)
        if waits_for_workers(cluster, [pod for pod in pods.for_sampling(owner) if pod.cluster == cluster.name])
    ]
    _, oldest = min(waiting, default=(None, key))
    return oldest.name if oldest != key else None


def _key(sampling: DDPMSampling) -> ObjectKey:
    metadata = sampling.metadata
    return ObjectKey(metadata.namespace, metadata.name, metadata.uid)
