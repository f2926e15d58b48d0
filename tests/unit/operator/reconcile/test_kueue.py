"""Kueue suspends and resumes the RayCluster: the sampling is Queued, and no attempt is spent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import ConditionType, EventReason, Phase
from ddpm_operator.reconcile.actions import CreateCluster, SubmitJob
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, ObservedPod
from tests.fakes.world import World


def running(**spec: object) -> World:
    """Returns a running sampling with some samples stored."""
    world = World.of(queueName="gpus", samples=640, **spec)
    world.run(until=lambda it: it.stored >= 128)
    return world


def delete_pods(world: World) -> None:
    """Lets KubeRay delete the pods."""
    while world.kuberay() or world.kubelet():
        world.reconcile()


def jobs(world: World) -> list[str]:
    return [it.id for it in world.executed if isinstance(it, SubmitJob)]


def test_suspended_cluster_is_queued_without_deadline() -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60)
    world.reconcile()
    assert world.kueue_suspends()
    world.reconcile()
    assert world.status.phase == Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == "The RayCluster waits for the queue gpus."
    assert world.status.start_time is None
    world.wait(3600)
    world.reconcile()
    assert world.status.phase == Phase.QUEUED
    assert world.kueue_resumes()
    world.reconcile()
    assert world.status.phase == Phase.STARTING
    assert world.status.start_time == world.now
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.reasons.count(EventReason.QUEUED) == 1


@pytest.mark.parametrize(
    "kind", [ActionErrorKind.KUBERAY_MISSING, ActionErrorKind.WEBHOOK_UNAVAILABLE, ActionErrorKind.TRANSIENT]
)
def test_uncreated_cluster_meets_the_startup_deadline(kind: ActionErrorKind) -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60, backoffLimit=0)
    error = ActionError(kind, "create the RayCluster digits-1", "no")
    world.reject = lambda it: error if isinstance(it, CreateCluster) else None
    begun = world.now
    world.run(until=lambda it: it.finished)
    assert timedelta(0) <= world.now - begun - timedelta(seconds=60) < timedelta(seconds=10)
    assert world.status.start_time is None


def test_full_quota_before_kueue_is_no_admission() -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60)
    full = ActionError(ActionErrorKind.QUOTA, "create the RayCluster digits-1", "exceeded quota: team")
    world.reject = lambda it: full if isinstance(it, CreateCluster) else None
    world.run(until=lambda it: it.sampling.status and it.status.phase is Phase.QUEUED)
    world.wait(3600)
    world.reject = lambda _: None
    world.reconcile()
    assert world.kueue_suspends()
    world.reconcile()
    assert world.status.phase is Phase.QUEUED
    assert world.status.start_time is None
    world.kueue_resumes()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_preempted_cluster_continues_the_same_attempt() -> None:
    world = running(activeDeadlineSeconds=300)
    world.kueue_suspends()
    delete_pods(world)
    assert world.status.phase == Phase.QUEUED
    assert not world.holds(ConditionType.RUNNING)
    assert not world.pods
    ran, stored = world.status.running_seconds, world.stored
    assert ran
    world.wait(3600)
    world.reconcile()
    assert (world.status.running_seconds, world.stored) == (ran, stored)
    assert world.kueue_resumes()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
    assert len([it for it in world.executed if isinstance(it, CreateCluster)]) == 1
    first, second = jobs(world)
    assert first == second


def test_startup_deadline_counts_from_the_last_admission() -> None:
    world = running(startupDeadlineSeconds=60)
    world.kueue_suspends()
    delete_pods(world)
    world.wait(3600)
    world.kueue_resumes()
    world.reconcile()
    admitted = world.now
    while not world.status.failure:
        assert world.requeue_at
        world.now = max(world.requeue_at, world.now + timedelta(seconds=1))
        world.reconcile()
    assert world.now - admitted == timedelta(seconds=60)


def test_time_and_cost_are_counted_once() -> None:
    world = running(activeDeadlineSeconds=300)
    world.kueue_suspends()
    world.reconcile()
    ran, cost = world.status.running_seconds, world.status.cost
    assert cost
    assert cost.cpu_seconds
    for _ in range(3):
        world.wait(10)
        world.reconcile()
    assert (world.status.running_seconds, world.status.cost) == (ran, cost)


def test_previous_head_is_not_taken_for_the_new_one() -> None:
    world = running()
    before = dict(world.pods)
    world.kueue_suspends()
    delete_pods(world)
    world.kueue_resumes()
    world.reconcile(before)
    assert world.status.phase == Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        "The RayCluster continues once its pods from before the suspension are gone."
    )
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_cluster_resumed_with_its_pods_keeps_its_head() -> None:
    world = running()
    (head,) = world.pods
    world.kueue_suspends()
    world.reconcile()
    assert world.status.phase == Phase.QUEUED
    world.kueue_resumes()
    world.reconcile()
    assert world.status.phase == Phase.RUNNING
    assert world.status.cluster
    assert world.status.cluster.head_uid == head
    world.run(until=lambda it: it.settled)
    assert len(jobs(world)) == 1


def test_stuck_previous_head_delays_the_cluster_a_minute() -> None:
    world = running()
    world.kueue_suspends()
    world.kuberay()
    stuck = dict(world.pods)
    world.reconcile()
    world.pods.clear()
    world.kueue_resumes()
    world.reconcile(stuck)
    assert world.status.phase == Phase.QUEUED
    world.wait(61)
    world.reconcile(stuck)
    assert world.status.phase == Phase.STARTING


def test_head_lost_after_resumption_ends_the_attempt() -> None:
    world = running()
    world.kueue_suspends()
    delete_pods(world)
    world.kueue_resumes()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.head_dies()
    world.reconcile()
    assert world.status.failed_attempts == 1
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_unobserved_suspension_is_no_failure() -> None:
    world = running()
    world.wait(5)
    world.kueue_suspends()
    while world.kuberay() or world.kubelet():
        pass
    world.wait(5)
    world.kueue_resumes()
    world.kuberay()
    world.reconcile()
    assert world.status.failure is None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


@pytest.mark.parametrize("died_after", [1, 2, 3])
def test_briefly_suspended_cluster_gets_its_missing_objects(died_after: int) -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.reconcile()
    world.kuberay()
    world.crash_at = len(world.executed) + died_after
    world.reconcile()
    world.wait(1)
    world.kueue_suspends()
    world.reconcile()
    world.kueue_resumes()
    world.crash_at = None
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


MOVES = st.sampled_from(["steps", "reconcile", "stale", "suspend", "resume", "kuberay", "kubelet", "crash", "wait"])


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(st.lists(MOVES, max_size=60), st.booleans(), st.data())
def test_suspensions_cost_no_attempt_and_no_deadline(moves: list[str], named: bool, data: st.DataObject) -> None:
    world = World.of(samples=640, backoffLimit=0, activeDeadlineSeconds=600, **({"queueName": "gpus"} if named else {}))
    stale: list[dict[str, ObservedPod]] = [{}]
    for move in moves:
        match move:
            case "steps":
                for _ in range(data.draw(st.integers(1, 12))):
                    world.step()
                stale = [dict(world.pods)]
            case "reconcile":
                world.reconcile()
                stale = [dict(world.pods)]
            case "stale":
                stale = stale[data.draw(st.integers(0, len(stale) - 1)) :]
                world.reconcile(stale[0])
            case "suspend":
                world.wait(1)
                world.kueue_suspends()
            case "resume":
                world.kueue_resumes()
            case "kuberay":
                world.kuberay()
            case "kubelet":
                world.kubelet()
            case "wait":
                if world.sampling.status and world.status.phase is Phase.QUEUED:
                    world.wait(3600)
            case "crash":
                world.crash_at = len(world.executed) + data.draw(st.integers(0, 3))
        stale.append(dict(world.pods))
    world.crash_at = None
    while world.kuberay() or world.kubelet():
        pass
    world.wait(1)
    world.kueue_resumes()
    world.reconcile()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
