"""A full quota: Queued while other pods fill it, failed if the plan is larger, and two heads never block each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.reconcile.actions import Action, CreateCluster, EnsureClaim, SubmitJob
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from tests.fakes.world import World

FULL = (
    'pods "x" is forbidden: exceeded quota: team, requested: requests.cpu=2, used: requests.cpu=7, '
    "limited: requests.cpu=8"
)


def fill(world: World) -> None:
    """Fills the quota with other pods, so that the head exists and its workers do not."""
    for pod in [it for it in world.pods.values() if it.role == "worker"]:
        del world.pods[pod.uid]
    world.clusters = {it.name: replace(it, replica_failure=FULL) for it in world.clusters.values()}


def free(world: World) -> None:
    """Frees the quota, and lets KubeRay create the workers."""
    world.blocked_by = None
    world.clusters = {it.name: replace(it, replica_failure=None) for it in world.clusters.values()}
    for cluster in world.clusters.values():
        world._new_pod(cluster, "worker")


def waiting(**spec: object) -> World:
    """Returns a sampling whose head is ready, and whose two workers the quota keeps out."""
    world = World.of(samples=2000, resources={"maxWorkers": 2}, startupDeadlineSeconds=60, **spec)
    world.reconcile()
    world.reconcile()
    world.kuberay()
    fill(world)
    world.reconcile()
    while world.kubelet():
        world.reconcile()
    world.reconcile()
    return world


def test_head_without_workers_is_queued_without_deadline() -> None:
    world = waiting(backoffLimit=0)
    for _ in range(60):
        world.wait(10)
        world.reconcile()
    assert world.status.phase is Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).reason == "QuotaExceeded"
    assert not any(isinstance(it, SubmitJob) for it in world.executed)
    assert world.reasons.count(EventReason.QUEUED) == 1
    free(world)
    freed = world.now
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
    assert world.status.cost
    assert world.status.plan
    pods_cpu = 1 + 2 * world.status.plan.workers
    assert world.status.cost.cpu_seconds <= pods_cpu * ((world.now - freed).total_seconds() + 5)


def test_deleted_head_is_replaced_while_queued() -> None:
    world = waiting(backoffLimit=0)
    world.provisioned.clear()  # without its workers the cluster was never provisioned
    for pod in list(world.pods.values()):
        world.finish_pod_deletion(pod)
    world.reconcile()
    free(world)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_one_worker_is_enough_to_begin() -> None:
    world = waiting()
    (cluster,) = world.clusters.values()
    world._new_pod(cluster, "worker")
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    assert world.condition(ConditionType.CLUSTER_READY).reason == "QuotaExceeded"
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_full_quota_does_not_end_before_the_last_attempt() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 2}, backoffLimit=1)
    world.run(until=lambda it: any(driver.jobs for driver in it.drivers.values()))
    fill(world)
    world.driver()
    world.driver_fails("Unschedulable", "no worker could be placed within 600 s")
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason is FailureReason.QUOTA_EXCEEDED
    assert "limited: requests.cpu=8" in world.status.failure.message
    assert world.status.phase is Phase.PENDING
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2


def test_younger_head_yields_without_a_failed_attempt() -> None:
    world = waiting(backoffLimit=0)
    world.blocked_by = "elder"
    world.reconcile()
    assert world.status.phase is Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        "The quota cannot hold the workers of this sampling and elder; this one waits, because elder is older."
    )
    world.run(until=lambda it: it.holds(ConditionType.CLEANED_UP))
    for _ in range(60):
        world.wait(10)
        world.reconcile()
    assert world.status.phase is Phase.QUEUED
    assert not world.clusters
    world.blocked_by = None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (2, 0)
    assert world.reasons.count(EventReason.QUEUED) == 1


@pytest.mark.parametrize("spec", [{}, {"resources": {"maxWorkers": 0}}])
def test_only_heads_without_workers_yield(spec: dict[str, object]) -> None:
    world = World.of(**spec)
    world.blocked_by = "elder"
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def refusing(kind: ActionErrorKind, action: type, message: str = "no") -> Callable[[Action], ActionError | None]:
    def refuse(tried: Action) -> ActionError | None:
        return ActionError(kind, "create the RayCluster digits-1", message) if isinstance(tried, action) else None

    return refuse


FULL_OF_PODS = 'pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3'


def test_full_quota_is_queued_without_deadline() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.reject = refusing(ActionErrorKind.QUOTA, CreateCluster, FULL_OF_PODS)
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    assert world.status.phase == Phase.QUEUED
    ready = world.condition(ConditionType.CLUSTER_READY)
    assert (ready.reason, FULL_OF_PODS in ready.message) == ("QuotaExceeded", True)
    for _ in range(20):
        world.wait(10)
        world.reconcile()
    assert world.status.phase == Phase.QUEUED
    assert world.reasons.count(EventReason.QUEUED) == 1
    world.reject = lambda _: None
    world.reconcile()
    world.reconcile()
    assert world.status.phase == Phase.STARTING
    assert world.status.cluster
    assert world.status.cluster.start_time == world.now.replace(microsecond=0)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_full_quota_for_pods_is_queued() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.reconcile()
    world.reconcile()
    (cluster,) = world.clusters.values()
    world.clusters = {cluster.name: replace(cluster, replica_failure=FULL_OF_PODS)}
    for _ in range(20):
        world.wait(10)
        world.reconcile()
    assert world.status.phase == Phase.QUEUED
    assert all(it.has_secret and it.has_network_policy for it in world.clusters.values())
    world.clusters = {it.name: replace(it, replica_failure=None) for it in world.clusters.values()}
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 1


def test_lost_head_is_not_hidden_by_a_full_quota() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.pods.clear()
    world.clusters = {it.name: replace(it, replica_failure=FULL_OF_PODS) for it in world.clusters.values()}
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST


@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("requested: pods=1, used: pods=0, limited: pods=0", "pods 3 of 0"),
        ("requested: pods=1, used: pods=2, limited: pods=2", "pods 3 of 2"),
        (
            "requested: limits.memory=4Gi,requests.cpu=1, used: limits.memory=0,requests.cpu=0, "
            "limited: limits.memory=2Gi,requests.cpu=8",
            "limits.memory 10Gi of 2Gi",
        ),
        (
            "requested: count/rayclusters.ray.io=1, used: count/rayclusters.ray.io=0, "
            "limited: count/rayclusters.ray.io=0",
            "count/rayclusters.ray.io 1 of 0",
        ),
    ],
)
def test_quota_smaller_than_the_plan_fails_with_figures(text: str, over: str) -> None:
    world = World.of(samples=10_000, resources={"maxWorkers": 2})
    world.reject = refusing(ActionErrorKind.QUOTA, CreateCluster, f"exceeded quota: team, {text}")
    begun = world.now
    world.run(until=lambda it: it.settled)
    assert (world.now - begun).total_seconds() < 15
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.QUOTA_EXCEEDED
    assert world.status.failure.message.endswith(f"more than the whole quota: {over}.")


def test_freed_quota_continues_the_attempt() -> None:
    world = World.of()
    world.reject = refusing(ActionErrorKind.QUOTA, EnsureClaim, "exceeded quota: team")
    world.run(until=lambda it: it.action_errors)
    world.reconcile()
    world.reject = lambda _: None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
