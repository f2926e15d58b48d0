"""Which waiting sampling starts next, and which one yields while a quota is full."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.controller.admission import QueueEntry, blocked_by, next_to_start
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey, Versioned
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
QUOTA_EXCEEDED = 'failed to create pod: pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2'


def key(name: str) -> ObjectKey:
    """Returns the key of a sampling: `a3` is the third one of the namespace a."""
    return ObjectKey(name[0], name, name)


def entries(names: Collection[str]) -> dict[ObjectKey, QueueEntry]:
    return {
        key(name): QueueEntry(1, NOON + timedelta(seconds=int(name[1:])), None, holds_slot=False, is_waiting=True)
        for name in names
    }


def starting(at_once: int | None, per_namespace: int | None, holders: str, waiting: str, **last_starts: int) -> str:
    limits = Limits(at_once=at_once, at_once_per_namespace=per_namespace)
    times = {namespace: NOON + timedelta(seconds=seconds) for namespace, seconds in last_starts.items()}
    admitted = next_to_start(limits, [key(it) for it in holders.split()], entries(waiting.split()), times)
    return " ".join(it.name for it in admitted)


@pytest.mark.parametrize(
    ("at_once", "per_namespace", "holders", "waiting", "admitted"),
    [
        (1, None, "", "a2 a1 a3", "a1"),
        (1, None, "a1", "a2", ""),
        (1, None, "a1 a2", "a3", ""),
        (3, None, "a1", "a2 a3 b9", "b9 a2"),
        (9, None, "", "a1 a2 a3 b4 b5 c6", "a1 b4 c6 a2 b5 a3"),
        (None, 1, "a1", "a2 a3 b4 b5", "b4"),
        (None, 2, "a1", "a2 a3 b4 b5", "b4 a2 b5"),
        (3, 2, "a1 a2", "a3 a4 b5 b6", "b5"),
    ],
)
def test_fewest_slots_first_then_oldest(
    at_once: int | None, per_namespace: int | None, holders: str, waiting: str, admitted: str
) -> None:
    assert starting(at_once, per_namespace, holders, waiting) == admitted


def test_tie_goes_to_the_namespace_idle_longest() -> None:
    assert starting(1, None, "", "a1 b2 c3", a=30, b=20, c=25) == "b2"
    assert starting(1, None, "", "a1 b2 c3", a=30, b=20) == "c3"


NAMES = st.sampled_from([f"{namespace}{number}" for namespace in "abc" for number in range(6)])


@given(st.none() | st.integers(1, 6), st.none() | st.integers(1, 3), st.sets(NAMES), st.sets(NAMES))
def test_every_free_slot_is_used_and_no_limit_exceeded(
    at_once: int | None, per_namespace: int | None, holders: set[str], waiting: set[str]
) -> None:
    waiting -= holders
    limits = Limits(at_once=at_once, at_once_per_namespace=per_namespace)
    admitted = [it.name for it in next_to_start(limits, [key(it) for it in holders], entries(waiting), {})]
    assert len(set(admitted)) == len(admitted)
    assert {*admitted} <= waiting
    max_total, max_per_namespace = at_once or 99, per_namespace or 99

    def in_namespace(namespace: str, names: Collection[str]) -> int:
        return sum(name[0] == namespace for name in names)

    running = [*holders, *admitted]
    assert not admitted or len(running) <= max_total
    for namespace in "abc":
        admitted_here = in_namespace(namespace, admitted)
        assert not admitted_here or in_namespace(namespace, running) <= max_per_namespace
        left_waiting = in_namespace(namespace, waiting) - admitted_here
        assert not left_waiting or len(running) >= max_total or in_namespace(namespace, running) >= max_per_namespace


@dataclass
class Caches:
    """The caches of clusters and pods, with samplings whose quota is full."""

    clusters: ObjectCache[ObservedCluster] = field(default_factory=ObjectCache)
    pods: ObjectCache[ObservedPod] = field(default_factory=ObjectCache)
    version: int = 0

    def put(self, owner: ObjectKey, age: int, roles: str = "head", **fields: object) -> None:
        """Adds a RayCluster that was created `age` seconds before noon, with pods of these roles."""
        name = f"{owner.name}-1"
        cluster = ObservedCluster(name, f"uid-{name}", 1, NOON - timedelta(seconds=age), replica_failure=QUOTA_EXCEEDED)
        self.clusters.update(Versioned(owner, cluster.uid, self._next_version(), replace(cluster, **fields)))  # type: ignore[arg-type]
        for role in roles.split():
            pod = ObservedPod(
                f"{name}-{role}", f"uid-{name}-{role}", name, 1, "head" if role == "head" else "worker", "Running"
            )
            self.pods.update(Versioned(owner, pod.uid, self._next_version(), pod))

    def _next_version(self) -> int:
        self.version += 1
        return self.version

    def blocked_by(self, name: str) -> str | None:
        return blocked_by(key(name), self.clusters, self.pods)


def test_all_yield_to_the_oldest_cluster() -> None:
    caches = Caches()
    for name, age in (("a1", 10), ("a2", 30), ("a3", 20)):
        caches.put(key(name), age)
    assert [caches.blocked_by(name) for name in ("a2", "a3", "a1", "a4")] == [None, "a2", "a2", "a2"]


@pytest.mark.parametrize(
    ("roles", "fields"),
    [
        ("head worker", {}),
        ("", {}),
        ("head", {"replica_failure": None}),
        ("head", {"replica_failure": "pods is forbidden: violates PodSecurity"}),
        ("head", {"deleted": NOON}),
        ("head", {"suspended": True}),
    ],
    ids=["has a worker", "no head", "no failure", "failure other than the quota", "being deleted", "suspended"],
)
def test_only_a_cluster_waiting_for_quota_blocks_others(roles: str, fields: dict[str, object]) -> None:
    caches = Caches()
    caches.put(key("a1"), 30, roles, **fields)
    caches.put(key("a2"), 10)
    assert caches.blocked_by("a2") is None


def test_no_sampling_is_blocked_by_another_namespace() -> None:
    caches = Caches()
    caches.put(key("b1"), 30)
    caches.put(key("a1"), 10)
    assert caches.blocked_by("a1") is None


def test_of_two_equally_old_clusters_one_yields() -> None:
    caches = Caches()
    caches.put(key("a1"), 10)
    caches.put(key("a2"), 10)
    assert (caches.blocked_by("a1"), caches.blocked_by("a2")) == (None, "a1")
