"""Startup deadline, active deadline, back-off and TTL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, FailureReason, Phase
from ddpm_operator.reconcile.actions import CreateCluster, DeleteSampling, WriteStatus
from ddpm_operator.reconcile.deadlines import backoff
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, HeadResponse, HeadUnreachable
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import World


def test_backoff_doubles_up_to_six_minutes() -> None:
    waits = [backoff(failed) // timedelta(seconds=1) for failed in (1, 2, 3, 4, 5, 6, 7, 100)]
    assert waits == [10, 20, 40, 80, 160, 320, 360, 360]


def create_stuck_head(world: World, **fields: object) -> None:
    """Creates a head pod that does not start, with fields that say why."""
    world.reconcile()
    world.kuberay()
    (head,) = world.pods.values()
    world.change(head.uid, **fields)


def run_until_failed(world: World) -> None:
    """Reconciles whenever it is due, until the attempt has failed."""
    while not world.status.failure:
        assert world.requeue_at
        world.now = max(world.requeue_at, world.now + timedelta(seconds=1))
        world.reconcile()


def test_missed_startup_deadline_fails_the_attempt() -> None:
    world = World.of(startupDeadlineSeconds=120)
    create_stuck_head(world)
    (head,) = world.pods.values()
    begun = world.now
    run_until_failed(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message == (
        "The attempt did not begin sampling within 2m00s of its admission. "
        f"The head pod {head.name} is not scheduled to a node yet."
    )
    assert world.now - begun == timedelta(seconds=120)
    assert world.status.phase == Phase.PENDING


def test_missed_startup_deadline_quotes_the_driver() -> None:
    world = World.of(startupDeadlineSeconds=120)
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    observed = world.observe()
    (driver,) = world.drivers.values()
    world.wait(121)
    document = ProgressDocument(
        version=1,
        phase="starting",
        done=0,
        total=0,
        percent=0,
        samples_per_second=None,
        eta_seconds=None,
        message="the cluster has room for 0 of 2 workers",
    )
    decision = reconcile(replace(observed, head_poll=HeadResponse(tuple(driver.jobs), document)), world.now)
    failure = decision.actions[0].status.failure  # type: ignore[union-attr]
    assert failure
    assert failure.message.endswith("of its admission. The cluster has room for 0 of 2 workers.")


def test_unschedulable_pods_fail_at_the_startup_deadline() -> None:
    world = World.of(startupDeadlineSeconds=120)
    create_stuck_head(world, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")
    world.reconcile()
    ready = world.condition(ConditionType.CLUSTER_READY)
    assert ready.reason == "Unschedulable"
    assert ready.message.endswith("fits no node: 0/3 nodes are available: 3 Insufficient cpu.")
    run_until_failed(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.UNSCHEDULABLE
    assert world.status.failure.message.endswith(
        "3 Insufficient cpu. The attempt did not begin sampling within 2m00s of its admission."
    )
    assert world.status.phase == Phase.FAILED


def test_cluster_without_pods_means_kuberay_missing() -> None:
    world = World.of(startupDeadlineSeconds=120)
    world.reconcile()
    (cluster,) = world.clusters.values()
    message = f"The RayCluster {cluster.name} exists, but no pods are created for it: KubeRay is not running."
    while world.condition(ConditionType.CLUSTER_READY).reason != "KubeRayMissing":
        assert world.now - cluster.created < timedelta(seconds=20)
        world.wait(1)
        world.reconcile()
    assert world.now - cluster.created >= timedelta(seconds=15)
    assert world.condition(ConditionType.CLUSTER_READY).message == message
    assert world.status.phase == Phase.STARTING
    run_until_failed(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.KUBERAY_MISSING
    assert world.status.failure.message == (
        f"{message} The attempt did not begin sampling within 2m00s of its admission."
    )
    assert world.status.phase == Phase.FAILED


def test_kuberay_grace_restarts_when_kueue_resumes() -> None:
    world = World.of(queueName="gpus")
    world.reconcile()
    world.kueue_suspends()
    world.reconcile()
    world.wait(3600)
    world.kueue_resumes()
    world.reconcile()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "Starting"
    world.wait(15)
    world.reconcile()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "KubeRayMissing"


def test_slow_kuberay_is_not_missing() -> None:
    world = World.of(startupDeadlineSeconds=120, backoffLimit=0)
    world.reconcile()
    (name,) = world.clusters
    world.clusters[name] = replace(world.clusters[name], seen_by_kuberay=True)
    run_until_failed(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message.endswith("KubeRay has not created the head pod yet.")


def test_running_driver_without_progress_meets_the_deadline() -> None:
    world = World.of(startupDeadlineSeconds=30)
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    world.driver()
    observed = world.observe()
    (driver,) = world.drivers.values()
    assert driver.jobs[-1].state == "RUNNING"
    world.wait(60)
    unreachable = replace(observed, head_poll=HeadResponse(tuple(driver.jobs), None))
    decision = reconcile(unreachable, world.now)
    written = decision.actions[0].status  # type: ignore[union-attr]
    assert written.phase == Phase.RUNNING
    assert written.failure is None


def sample_while_operator_is_down(world: World) -> None:
    """The operator is down from before the driver begins to sample until after the deadline."""
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    while not world.stored:
        world.driver()
    world.wait(600)
    world.crash()


def test_one_failed_poll_after_the_deadline_is_tolerated() -> None:
    world = World.of(samples=640, startupDeadlineSeconds=120, backoffLimit=0)
    sample_while_operator_is_down(world)
    unreachable = replace(world.observe(), head_poll=HeadUnreachable(world.now, "timeout"))
    decision = reconcile(unreachable, world.now)
    assert not [it for it in decision.actions if isinstance(it, WriteStatus) and it.status.failure]
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_silent_head_misses_the_startup_deadline() -> None:
    world = World.of(samples=640, startupDeadlineSeconds=120, backoffLimit=0)
    sample_while_operator_is_down(world)
    seen = world.observe()
    unreachable = replace(seen, head_poll=HeadUnreachable(world.now - timedelta(seconds=15), "timeout"))
    (written,) = [it.status for it in reconcile(unreachable, world.now).actions if isinstance(it, WriteStatus)]
    assert written.failure
    assert written.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED


def test_active_deadline_counts_all_attempts() -> None:
    world = World.of(samples=1_000_000, activeDeadlineSeconds=100)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.now += timedelta(seconds=60)
    world.head_dies()
    world.reconcile()
    assert world.status.running_seconds == 60
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    begun = world.condition(ConditionType.RUNNING).last_transition_time
    world.run(until=lambda it: it.finished)
    assert world.status.completion_time
    assert world.status.completion_time - begun == timedelta(seconds=40)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DEADLINE_EXCEEDED
    assert world.status.failure.message == "It has run for 1m40s, the limit that spec.activeDeadlineSeconds sets."
    assert world.status.phase == Phase.FAILED


def test_retry_resets_the_running_time() -> None:
    world = World.of(samples=1_000_000, activeDeadlineSeconds=100)
    world.run(until=lambda it: it.settled)
    world.edit(backoffLimit=4)
    world.reconcile()
    assert world.status.running_seconds == 0
    assert world.status.phase == Phase.STARTING


@pytest.mark.parametrize("ttl", [0, 3600])
def test_finished_resource_is_deleted_after_its_ttl(ttl: int) -> None:
    world = World.of(ttlSecondsAfterFinished=ttl)
    world.run(until=lambda it: it.finished)
    done = world.status.completion_time
    assert done
    world.run(until=lambda it: it.is_deleted)
    assert isinstance(world.executed[-1], DeleteSampling)
    assert timedelta(0) <= world.now - done - timedelta(seconds=ttl) < timedelta(seconds=2)
    assert not world.clusters


def test_rejected_resource_is_deleted_after_its_ttl() -> None:
    world = World.of(ttlSecondsAfterFinished=60)
    world.reject = lambda it: (
        ActionError(ActionErrorKind.KUBERAY_MISSING, "create it", "no") if isinstance(it, CreateCluster) else None
    )
    world.run(until=lambda it: it.is_deleted)


def test_sampling_without_ttl_is_kept() -> None:
    world = World.of()
    world.run(until=lambda it: it.settled)
    assert world.requeue_at is None or world.requeue_at <= world.now
    world.wait(10**8)
    world.reconcile()
    assert not world.is_deleted
