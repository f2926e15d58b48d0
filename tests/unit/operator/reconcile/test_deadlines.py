"""Deadlines, queues and the time a finished resource has left."""

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


def held_up(world: World, **fields: object) -> None:
    """The head pod stays as it is made, with something to say about why."""
    world.look()
    world.kuberay()
    (head,) = world.pods.values()
    world.change(head.uid, **fields)


def until_late(world: World) -> None:
    """Time passes, and the operator looks whenever it wants to."""
    while not world.status.failure:
        assert world.due
        world.now = max(world.due, world.now + timedelta(seconds=1))
        world.look()


def test_an_attempt_that_does_not_begin_to_sample_in_time_has_failed_and_another_may_do_better() -> None:
    world = World.of(startupDeadlineSeconds=120)
    held_up(world)
    (head,) = world.pods.values()
    begun = world.now
    until_late(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message == (
        f"The attempt has not begun to sample within 2m00s of its admission. The head pod {head.name} is not scheduled to a node yet."
    )
    assert world.now - begun == timedelta(seconds=120)
    assert world.status.phase == Phase.PENDING


def test_a_start_that_comes_too_late_says_how_far_it_has_come() -> None:
    world = World.of(startupDeadlineSeconds=120)
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    observed = world.observe()
    (driver,) = world.drivers.values()
    world.wait(121)
    says = ProgressDocument(
        version=1,
        phase="starting",
        done=0,
        total=0,
        percent=0,
        samples_per_second=None,
        eta_seconds=None,
        message="the cluster has room for 0 of 2 workers",
    )
    decision = reconcile(replace(observed, head_poll=HeadResponse(tuple(driver.jobs), says)), world.now)
    failure = decision.actions[0].status.failure  # type: ignore[union-attr]
    assert failure
    assert failure.message.endswith("of its admission. The cluster has room for 0 of 2 workers.")


def test_pods_that_fit_no_node_are_waited_for_until_the_deadline_and_not_tried_again() -> None:
    world = World.of(startupDeadlineSeconds=120)
    held_up(world, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")
    world.look()
    ready = world.condition(ConditionType.CLUSTER_READY)
    assert ready.reason == "Unschedulable"
    assert ready.message.endswith("fits no node: 0/3 nodes are available: 3 Insufficient cpu.")
    until_late(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.UNSCHEDULABLE
    assert world.status.failure.message.endswith(
        "3 Insufficient cpu. The attempt has not begun to sample within 2m00s of its admission."
    )
    assert world.status.phase == Phase.FAILED


def test_a_cluster_that_nobody_makes_pods_of_means_that_kuberay_does_not_run() -> None:
    world = World.of(startupDeadlineSeconds=120)
    world.look()
    (cluster,) = world.clusters.values()
    words = f"The RayCluster {cluster.name} exists, but no pods are created for it: KubeRay is not running."
    while world.condition(ConditionType.CLUSTER_READY).reason != "KubeRayMissing":
        assert world.now - cluster.created < timedelta(seconds=20)
        world.wait(1)
        world.look()
    assert world.now - cluster.created >= timedelta(seconds=15)
    assert world.condition(ConditionType.CLUSTER_READY).message == words
    assert world.status.phase == Phase.STARTING
    until_late(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.KUBERAY_MISSING
    assert world.status.failure.message == (
        f"{words} The attempt has not begun to sample within 2m00s of its admission."
    )
    assert world.status.phase == Phase.FAILED


def test_kuberay_has_its_time_anew_when_a_queue_lets_the_cluster_in() -> None:
    world = World.of(queueName="gpus")
    world.look()
    world.queue_takes()
    world.look()
    world.wait(3600)
    world.queue_gives()
    world.look()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "Starting"
    world.wait(15)
    world.look()
    assert world.condition(ConditionType.CLUSTER_READY).reason == "KubeRayMissing"


def test_kuberay_that_has_seen_a_cluster_and_is_slow_to_make_its_pods_is_not_missing() -> None:
    world = World.of(startupDeadlineSeconds=120, backoffLimit=0)
    world.look()
    (name,) = world.clusters
    world.clusters[name] = replace(world.clusters[name], seen_by_kuberay=True)
    until_late(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED
    assert world.status.failure.message.endswith("KubeRay has not created the head pod yet.")


def test_a_driver_that_works_and_cannot_be_heard_is_not_ended_by_the_startup_deadline() -> None:
    world = World.of(startupDeadlineSeconds=30)
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    world.driver()
    observed = world.observe()
    (driver,) = world.drivers.values()
    assert driver.jobs[-1].state == "RUNNING"
    world.wait(60)
    mute = replace(observed, head_poll=HeadResponse(tuple(driver.jobs), None))
    decision = reconcile(mute, world.now)
    written = decision.actions[0].status  # type: ignore[union-attr]
    assert written.phase == Phase.RUNNING
    assert written.failure is None


def sampling_unseen(world: World) -> None:
    """The operator was away from before the driver began to sample until after the deadline."""
    world.run(until=lambda it: it.drivers and any(d.jobs for d in it.drivers.values()))
    while not world.stored:
        world.driver()
    world.wait(600)
    world._die()


def test_one_answer_that_is_missed_after_the_deadline_ends_nothing() -> None:
    world = World.of(samples=640, startupDeadlineSeconds=120, backoffLimit=0)
    sampling_unseen(world)
    mute = replace(world.observe(), head_poll=HeadUnreachable(world.now, "timeout"))
    decision = reconcile(mute, world.now)
    assert not [it for it in decision.actions if isinstance(it, WriteStatus) and it.status.failure]
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_head_that_stays_silent_after_the_deadline_has_missed_it() -> None:
    world = World.of(samples=640, startupDeadlineSeconds=120, backoffLimit=0)
    sampling_unseen(world)
    seen = world.observe()
    mute = replace(seen, head_poll=HeadUnreachable(world.now - timedelta(seconds=15), "timeout"))
    (written,) = [it.status for it in reconcile(mute, world.now).actions if isinstance(it, WriteStatus)]
    assert written.failure
    assert written.failure.reason == FailureReason.STARTUP_DEADLINE_EXCEEDED


def test_running_time_is_counted_over_all_attempts_and_ends_the_sampling() -> None:
    world = World.of(samples=1_000_000, activeDeadlineSeconds=100)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.now += timedelta(seconds=60)
    world.head_dies()
    world.look()
    assert world.status.running_seconds == 60
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    begun = world.condition(ConditionType.RUNNING).last_transition_time
    world.run(until=lambda it: it.ended)
    assert world.status.completion_time
    assert world.status.completion_time - begun == timedelta(seconds=40)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DEADLINE_EXCEEDED
    assert world.status.failure.message == "It has run for 1m40s, the limit that spec.activeDeadlineSeconds sets."
    assert world.status.phase == Phase.FAILED


def test_a_retry_has_its_running_time_anew() -> None:
    world = World.of(samples=1_000_000, activeDeadlineSeconds=100)
    world.run(until=lambda it: it.at_rest)
    world.edit(backoffLimit=4)
    world.look()
    assert world.status.running_seconds == 0
    assert world.status.phase == Phase.STARTING


@pytest.mark.parametrize("ttl", [0, 3600])
def test_a_finished_resource_is_deleted_when_its_time_is_up_and_not_before(ttl: int) -> None:
    world = World.of(ttlSecondsAfterFinished=ttl)
    world.run(until=lambda it: it.ended)
    done = world.status.completion_time
    assert done
    world.run(until=lambda it: it.gone)
    assert isinstance(world.carried[-1], DeleteSampling)
    assert timedelta(0) <= world.now - done - timedelta(seconds=ttl) < timedelta(seconds=2)
    assert not world.clusters


def test_a_rejected_resource_is_deleted_when_its_time_is_up_too() -> None:
    world = World.of(ttlSecondsAfterFinished=60)
    world.refuse = lambda it: (
        ActionError(ActionErrorKind.KUBERAY_MISSING, "create it", "no") if isinstance(it, CreateCluster) else None
    )
    world.run(until=lambda it: it.gone)


def test_a_sampling_without_a_time_to_live_stays() -> None:
    world = World.of()
    world.run(until=lambda it: it.at_rest)
    assert world.due is None or world.due <= world.now
    world.wait(10**8)
    world.look()
    assert not world.gone
