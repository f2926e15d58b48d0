"""Whose turn it is, where an administrator limits how many samplings are at work at once.

It is decided here alone, and from what the samplings' statuses say, so that the next operator decides the same. A
sampling holds a place from the status that names its cluster until nothing is left of that cluster. Among the
namespaces, the one with the fewest places goes first; of equals, the one whose last attempt began longest ago; and
in a namespace, the oldest sampling.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ddpm_operator.api import GROUP, KIND, VERSION, ConditionType, DDPMSampling, Phase
from ddpm_operator.kube.decode import SchemaMismatch, decode_sampling
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.kube.responses import Document
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import Decision, WriteStatus
from ddpm_operator.reconcile.status_builder import condition
from ddpm_operator.text import count

# The items of a list may come without it.
_IDENTITY: Document = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class QueueEntry:
    """What the line knows of a sampling.

    Attributes:
        version: the resourceVersion that says so.
        begun: when an attempt of it was last admitted; None if none was.
        holds: a place.
        waits: for one.
    """

    version: int
    created: datetime
    begun: datetime | None
    holds: bool
    waits: bool


def queue_entry(sampling: DDPMSampling) -> QueueEntry:
    """Where a sampling stands by its own status."""
    metadata, status = sampling.metadata, sampling.status
    cluster = status.cluster if status else None
    times = [time for time in (cluster and cluster.start_time, status and status.start_time) if time]
    cleaned = condition(status, ConditionType.CLEANED_UP)
    # Its status is not written any more: only what is there of it tells.
    going = metadata.deletion_timestamp is not None
    queued = status is not None and status.phase is Phase.QUEUED and cluster is None
    return QueueEntry(
        version=int(metadata.resource_version),
        created=metadata.creation_timestamp or _LONG_AGO,
        begun=max(times, default=None),
        holds=not going and (cluster is not None or (cleaned is not None and cleaned.status == "False")),
        waits=queued and not sampling.spec.suspend and not going,
    )


def next_to_start(
    limits: Limits,
    holding: Collection[ObjectKey],
    waiting: Mapping[ObjectKey, QueueEntry],
    begun: Mapping[str, datetime],
) -> tuple[ObjectKey, ...]:
    """Those that may begin now, the first in line first.

    Args:
        holding: those that hold a place.
        begun: when the last attempt of a namespace did.
    """
    taken = Counter(key.namespace for key in holding)
    lines: dict[str, deque[ObjectKey]] = {}
    for key in sorted(waiting, key=lambda it: (waiting[it].created, it)):
        lines.setdefault(key.namespace, deque()).append(key)
    found: list[ObjectKey] = []
    while limits.at_once is None or taken.total() < limits.at_once:
        per_namespace = limits.at_once_per_namespace
        able = [it for it in lines if lines[it] and (per_namespace is None or taken[it] < per_namespace)]
        if not able:
            break
        first = min(able, key=lambda it: (taken[it], begun.get(it, _LONG_AGO), waiting[lines[it][0]].created, it))
        found.append(lines[first].popleft())
        taken[first] += 1
    return tuple(found)


class AdmissionQueue:
    """Who holds a place, and who waits for one.

    Two samplings never get the same place: whoever is let in holds it from that moment, before its status says so,
    until a later look at the resource tells otherwise.

    Args:
        limits: with no number in them, nobody ever waits and nothing is kept.
        at_work: whoever has a RayCluster, though the resource itself may be gone; or never was, as its labels are
            anybody's to write.
    """

    def __init__(self, limits: Limits, at_work: Callable[[], Collection[ObjectKey]]) -> None:
        self._limits = limits
        self._at_work = at_work
        self._known: dict[ObjectKey, QueueEntry] = {}
        self._departed: set[ObjectKey] = set()
        self._let_in: set[ObjectKey] = set()
        self._called: set[ObjectKey] = set()

    @property
    def limited(self) -> bool:
        return (self._limits.at_once, self._limits.at_once_per_namespace) != (None, None)

    def heard(self, document: Document) -> None:
        """A watch or a list has told of a sampling: what is older than what is known is no news."""
        if not self.limited:
            return
        try:
            sampling = decode_sampling(_IDENTITY | document)
        except SchemaMismatch:
            return  # a look at it says so, and nothing is begun
        known = self._known.get(_key(sampling))
        if known is None or known.version < int(sampling.metadata.resource_version):
            self.read(sampling)

    def read(self, sampling: DDPMSampling) -> None:
        """The API server has just shown a sampling, or taken its status: this is how it is now."""
        if self.limited:
            key = _key(sampling)
            self._known[key] = queue_entry(sampling)
            self._let_in.discard(key)

    def gone(self, key: ObjectKey) -> None:
        """A sampling is there no more."""
        if self._known.pop(key, None):
            self._departed.add(key)
        self._let_in.discard(key)

    def held_back(self, key: ObjectKey) -> str | None:
        """Why a sampling that could begin now may not, in a sentence; None if it may."""
        if not self.limited or key in self._next(key):
            return None
        limits, namespace = self._limits, key.namespace
        before = [*self._holding(), *self._next(key)]
        own = sum(it.namespace == namespace for it in before)
        if limits.at_once_per_namespace is not None and own >= limits.at_once_per_namespace:
            most, where = limits.at_once_per_namespace, "of a namespace "
        else:
            most, where = limits.at_once or 0, ""
        return f"It waits for its turn: the administrator lets {count(most, 'sampling')} {where}work at once."

    def decided(self, key: ObjectKey, decision: Decision) -> None:
        """What a look has decided, before any of it is done: whoever gets a cluster holds a place at once."""
        statuses = [action.status for action in decision.actions if isinstance(action, WriteStatus)]
        if self.limited and any(status.cluster for status in statuses):
            self._let_in.add(key)

    def called(self) -> tuple[ObjectKey, ...]:
        """Those whose turn has come since this was last asked."""
        if not self.limited:
            return ()
        due = self._next()
        new = tuple(key for key in due if key not in self._called)
        self._called = set(due)
        return new

    def _holding(self) -> set[ObjectKey]:
        at_work = {*self._at_work()}
        self._departed &= at_work
        holding = {key for key, it in self._known.items() if it.holds} | self._let_in
        return holding | self._departed | (at_work & self._known.keys())

    def _next(self, asking: ObjectKey | None = None) -> tuple[ObjectKey, ...]:
        holding = self._holding()
        waiting = {key: it for key, it in self._known.items() if (it.waits or key == asking) and key not in holding}
        begun: dict[str, datetime] = {}
        for key, it in self._known.items():
            begun[key.namespace] = max(begun.get(key.namespace, _LONG_AGO), it.begun or _LONG_AGO)
        return next_to_start(self._limits, holding, waiting, begun)


def _key(sampling: DDPMSampling) -> ObjectKey:
    metadata = sampling.metadata
    return ObjectKey(metadata.namespace, metadata.name, metadata.uid)
