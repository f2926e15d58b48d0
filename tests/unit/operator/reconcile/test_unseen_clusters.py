"""A RayCluster that somebody deletes before the operator has seen it: made again once nothing of it is left."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, FailureReason
from ddpm_operator.reconcile.actions import CreateCluster
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from tests.fakes.world import World


def deleted_unseen(**spec: object) -> World:
    """KubeRay has made its pods already, and it goes slowly."""
    world = World.of(**spec)
    world.look()
    world.kuberay()
    assert world.cluster_deleted()
    return world


def creations(world: World) -> int:
    return sum(isinstance(it, CreateCluster) for it in world.carried)


def test_nothing_is_asked_for_as_long_as_it_goes() -> None:
    world = deleted_unseen()
    before = creations(world)
    for _ in range(6):
        world.look()
        assert world.condition(ConditionType.CLUSTER_READY).reason == "WaitingForCleanUp"
        assert world.due
        assert world.due - world.now >= timedelta(seconds=5)
        world.now = world.due
    assert creations(world) == before
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_its_pods_are_waited_for_though_nobody_has_asked_them_to_go_yet() -> None:
    world = deleted_unseen()
    (name,) = world.clusters
    del world.clusters[name]
    world.look()
    (old,) = world.pods.values()
    world.wait(10)
    world.look()
    assert not world.clusters
    world.change(old.uid, deleted=world.now)
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_a_pod_of_it_on_a_node_that_is_gone_is_not_taken_for_one_of_the_next() -> None:
    world = deleted_unseen()
    (name,) = world.clusters
    (old,) = world.pods.values()
    del world.clusters[name]
    world.change(old.uid, deleted=world.now)
    while not world.clusters:
        world.wait(10)
        world.look()
    assert world.now - (world.pods[old.uid].deleted or world.now) >= timedelta(seconds=60)
    assert world.observe().cluster
    assert world.observe().cluster_pods == ()


@pytest.mark.parametrize("kind", [None, ActionErrorKind.QUOTA])
def test_one_that_never_goes_is_waited_for_until_the_deadline(kind: ActionErrorKind | None) -> None:
    world = deleted_unseen(startupDeadlineSeconds=60, backoffLimit=0)
    for _ in range(7):
        world.action_errors = (ActionError(kind, "create the RayCluster digits-1", "exceeded quota"),) if kind else ()
        world.look()
        world.wait(10)
    assert world.status.failure
    assert world.status.failure.reason in (FailureReason.STARTUP_DEADLINE_EXCEEDED, FailureReason.QUOTA_EXCEEDED)
