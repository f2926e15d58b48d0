"""Of all samplings of a namespace whose heads wait for workers, that with the oldest cluster keeps its place."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from ddpm_operator.controller.rivals import blocked_by
from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey, Versioned
from ddpm_operator.reconcile.observed import ObservedCluster, ObservedPod

BEGAN = datetime(2026, 11, 28, tzinfo=UTC)
FULL = 'failed to create pod: pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2'


def key(name: str, namespace: str = "research") -> ObjectKey:
    return ObjectKey(namespace, name, f"uid-of-{name}")


@dataclass
class Namespace:
    """What the operator sees."""

    clusters: ObjectCache[ObservedCluster] = field(default_factory=ObjectCache)
    pods: ObjectCache[ObservedPod] = field(default_factory=ObjectCache)
    sights: int = 0

    def put(self, of: ObjectKey, age: int, roles: str = "head", **fields: object) -> None:
        """A RayCluster that began so many seconds before now, with pods of these roles."""
        name = f"{of.name}-1"
        cluster = ObservedCluster(name, f"uid-{name}", 1, BEGAN - timedelta(seconds=age), replica_failure=FULL)
        self.clusters.saw(Versioned(of, cluster.uid, self._next(), replace(cluster, **fields)))  # type: ignore[arg-type]
        for role in roles.split():
            pod = ObservedPod(
                f"{name}-{role}", f"uid-{name}-{role}", name, 1, "head" if role == "head" else "worker", "Running"
            )
            self.pods.saw(Versioned(of, pod.uid, self._next(), pod))

    def _next(self) -> int:
        self.sights += 1
        return self.sights

    def ahead(self, of: ObjectKey) -> str | None:
        return blocked_by(of, self.clusters, self.pods)


def test_the_oldest_goes_before_all_others_and_gives_way_to_nobody() -> None:
    there = Namespace()
    for name, age in (("young", 10), ("old", 30), ("middle", 20)):
        there.put(key(name), age)
    assert [there.ahead(key(name)) for name in ("old", "middle", "young", "new")] == [None, "old", "old", "old"]


@pytest.mark.parametrize(
    ("roles", "fields"),
    [
        ("head worker", {}),
        ("", {}),
        ("head", {"replica_failure": None}),
        ("head", {"replica_failure": "pods is forbidden: violates PodSecurity"}),
        ("head", {"deleted": BEGAN}),
        ("head", {"suspended": True}),
    ],
    ids=["a worker is there", "no head", "nothing is wrong", "not the quota", "it goes", "its queue has it"],
)
def test_who_does_not_wait_for_workers_keeps_nobody_back(roles: str, fields: dict[str, object]) -> None:
    there = Namespace()
    there.put(key("old"), 30, roles, **fields)
    there.put(key("young"), 10)
    assert there.ahead(key("young")) is None


def test_a_quota_is_of_one_namespace() -> None:
    there = Namespace()
    there.put(key("old", "elsewhere"), 30)
    there.put(key("young"), 10)
    assert there.ahead(key("young")) is None


def test_of_two_as_old_one_gives_way() -> None:
    there = Namespace()
    there.put(key("a"), 10)
    there.put(key("b"), 10)
    assert (there.ahead(key("a")), there.ahead(key("b"))) == (None, "a")
