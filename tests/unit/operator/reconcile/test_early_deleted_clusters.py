"""Another client deletes the RayCluster before the operator has observed it: it is created again after its clean-up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, FailureReason
from ddpm_operator.reconcile.actions import CreateCluster
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from tests.fakes.world import World


def deleted_early(**spec: object) -> World:
    """Returns a sampling whose cluster was deleted before it was observed, and still has pods."""
    world = World.of(**spec)
    world.reconcile()
    world.kuberay()
    assert world.delete_cluster()
    return world


def creations(world: World) -> int:
    return sum(isinstance(it, CreateCluster) for it in world.executed)


def test_deleted_cluster_is_not_recreated_while_it_exists() -> None:
    world = deleted_early()
    before = creations(world)
    for _ in range(6):
        world.reconcile()
        assert world.condition(ConditionType.CLUSTER_READY).reason == "WaitingForCleanUp"
        assert world.requeue_at
        assert world.requeue_at - world.now >= timedelta(seconds=5)
        world.now = world.requeue_at
    assert creations(world) == before
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_orphaned_pods_delay_the_new_cluster() -> None:
    world = deleted_early()
    (name,) = world.clusters
    del world.clusters[name]
    world.reconcile()
    (old,) = world.pods.values()
    world.wait(10)
    world.reconcile()
    assert not world.clusters
    world.change(old.uid, deleted=world.now)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_stuck_pod_is_not_counted_for_the_new_cluster() -> None:
    world = deleted_early()
    (name,) = world.clusters
    (old,) = world.pods.values()
    del world.clusters[name]
    world.change(old.uid, deleted=world.now)
    while not world.clusters:
        world.wait(10)
        world.reconcile()
    assert world.now - (world.pods[old.uid].deleted or world.now) >= timedelta(seconds=60)
    assert world.observe().cluster
    assert world.observe().cluster_pods == ()


@pytest.mark.parametrize("kind", [None, ActionErrorKind.QUOTA])
def test_undeletable_cluster_meets_the_startup_deadline(kind: ActionErrorKind | None) -> None:
    world = deleted_early(startupDeadlineSeconds=60, backoffLimit=0)
    for _ in range(7):
        world.action_errors = (ActionError(kind, "create the RayCluster digits-1", "exceeded quota"),) if kind else ()
        world.reconcile()
        world.wait(10)
    assert world.status.failure
    assert world.status.failure.reason in (FailureReason.STARTUP_DEADLINE_EXCEEDED, FailureReason.QUOTA_EXCEEDED)
