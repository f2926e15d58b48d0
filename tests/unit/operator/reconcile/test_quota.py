"""A quota with room for the head and not for the workers is waited for, and never by two heads for each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.reconcile.actions import SubmitJob
from tests.fakes.world import World

FULL = (
    'pods "x" is forbidden: exceeded quota: team, requested: requests.cpu=2, used: requests.cpu=7, '
    "limited: requests.cpu=8"
)


def fill(world: World) -> None:
    """The head is there, and others have what its workers need."""
    for pod in [it for it in world.pods.values() if it.role == "worker"]:
        del world.pods[pod.uid]
    world.clusters = {it.name: replace(it, replica_failure=FULL) for it in world.clusters.values()}


def free(world: World) -> None:
    """KubeRay makes the workers after all."""
    world.blocked_by = None
    world.clusters = {it.name: replace(it, replica_failure=None) for it in world.clusters.values()}
    for cluster in world.clusters.values():
        world._new_pod(cluster, "worker")


def waiting(**spec: object) -> World:
    """Its head runs and is ready, and none of its two workers is let in."""
    world = World.of(samples=2000, resources={"maxWorkers": 2}, startupDeadlineSeconds=60, **spec)
    world.look()
    world.look()
    world.kuberay()
    fill(world)
    world.look()
    while world.kubelet():
        world.look()
    world.look()
    return world


def test_a_head_whose_workers_are_kept_out_is_queued_and_no_deadline_runs() -> None:
    world = waiting(backoffLimit=0)
    for _ in range(60):
        world.wait(10)
        world.look()
    assert world.status.phase is Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).reason == "QuotaExceeded"
    assert not any(isinstance(it, SubmitJob) for it in world.carried)
    assert world.reasons.count(EventReason.QUEUED) == 1
    free(world)
    freed = world.now
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
    assert world.status.cost
    assert world.status.plan
    pods_cpu = 1 + 2 * world.status.plan.workers
    assert world.status.cost.cpu_seconds <= pods_cpu * ((world.now - freed).total_seconds() + 5)


def test_a_head_that_goes_while_its_workers_are_kept_out_leaves_its_place_to_the_next() -> None:
    world = waiting(backoffLimit=0)
    world.provisioned.clear()  # without its workers it never was
    for pod in list(world.pods.values()):
        world.pod_gone(pod)
    world.look()
    free(world)
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_with_one_of_its_workers_it_begins_and_the_others_are_waited_for_meanwhile() -> None:
    world = waiting()
    (cluster,) = world.clusters.values()
    world._new_pod(cluster, "worker")
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    assert world.condition(ConditionType.CLUSTER_READY).reason == "QuotaExceeded"
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_quota_that_is_only_full_never_ends_a_sampling_before_its_last_attempt() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 2}, backoffLimit=1)
    world.run(until=lambda it: any(driver.jobs for driver in it.drivers.values()))
    fill(world)
    world.driver()
    world.driver_fails("Unschedulable", "no worker could be placed within 600 s")
    world.look()
    assert world.status.failure
    assert world.status.failure.reason is FailureReason.QUOTA_EXCEEDED
    assert "limited: requests.cpu=8" in world.status.failure.message
    assert world.status.phase is Phase.PENDING
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2


def test_of_two_heads_that_wait_for_workers_the_younger_goes_and_comes_again_at_no_attempts_cost() -> None:
    world = waiting(backoffLimit=0)
    world.blocked_by = "elder"
    world.look()
    assert world.status.phase is Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        "The quota has no room for the workers of both: it waits until elder, which is older, has its workers."
    )
    world.run(until=lambda it: it.holds(ConditionType.CLEANED_UP))
    for _ in range(60):
        world.wait(10)
        world.look()
    assert world.status.phase is Phase.QUEUED
    assert not world.clusters
    world.blocked_by = None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (2, 0)
    assert world.reasons.count(EventReason.QUEUED) == 1


@pytest.mark.parametrize("spec", [{}, {"resources": {"maxWorkers": 0}}])
def test_nobody_who_does_not_wait_for_workers_gives_way(spec: dict[str, object]) -> None:
    world = World.of(**spec)
    world.blocked_by = "elder"
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1
