"""A cluster that others suspend and let in again, as Kueue does: Queued, and no attempt is spent."""

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
    """At work, with samples stored and more to draw."""
    world = World.of(queueName="gpus", samples=640, **spec)
    world.run(until=lambda it: it.stored >= 128)
    return world


def empty(world: World) -> None:
    """KubeRay takes the pods away."""
    while world.kuberay() or world.kubelet():
        world.look()


def jobs(world: World) -> list[str]:
    return [it.id for it in world.carried if isinstance(it, SubmitJob)]


def test_a_sampling_in_a_queue_is_queued_and_its_clock_stands() -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60)
    world.look()
    assert world.queue_takes()
    world.look()
    assert world.status.phase == Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == "The RayCluster waits for the queue gpus."
    assert world.status.start_time is None
    world.wait(3600)
    world.look()
    assert world.status.phase == Phase.QUEUED
    assert world.queue_gives()
    world.look()
    assert world.status.phase == Phase.STARTING
    assert world.status.start_time == world.now
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.reasons.count(EventReason.QUEUED) == 1


@pytest.mark.parametrize(
    "kind", [ActionErrorKind.KUBERAY_MISSING, ActionErrorKind.WEBHOOK_UNAVAILABLE, ActionErrorKind.TRANSIENT]
)
def test_a_cluster_that_cannot_be_made_for_its_queue_is_not_waited_for_for_ever(kind: ActionErrorKind) -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60, backoffLimit=0)
    fault = ActionError(kind, "create the RayCluster digits-1", "no")
    world.refuse = lambda it: fault if isinstance(it, CreateCluster) else None
    begun = world.now
    world.run(until=lambda it: it.ended)
    assert timedelta(0) <= world.now - begun - timedelta(seconds=60) < timedelta(seconds=10)
    assert world.status.start_time is None


def test_a_quota_that_was_full_before_the_queue_has_its_say_is_no_admission() -> None:
    world = World.of(queueName="gpus", startupDeadlineSeconds=60)
    full = ActionError(ActionErrorKind.QUOTA, "create the RayCluster digits-1", "exceeded quota: team")
    world.refuse = lambda it: full if isinstance(it, CreateCluster) else None
    world.run(until=lambda it: it.sampling.status and it.status.phase is Phase.QUEUED)
    world.wait(3600)
    world.refuse = lambda _: None
    world.look()
    assert world.queue_takes()
    world.look()
    assert world.status.phase is Phase.QUEUED
    assert world.status.start_time is None
    world.queue_gives()
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_cluster_that_its_queue_takes_back_goes_on_with_the_same_job_as_the_same_attempt() -> None:
    world = running(activeDeadlineSeconds=300)
    world.queue_takes()
    empty(world)
    assert world.status.phase == Phase.QUEUED
    assert not world.holds(ConditionType.RUNNING)
    assert not world.pods
    ran, stored = world.status.running_seconds, world.stored
    assert ran
    world.wait(3600)
    world.look()
    assert (world.status.running_seconds, world.stored) == (ran, stored)
    assert world.queue_gives()
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
    assert len([it for it in world.carried if isinstance(it, CreateCluster)]) == 1
    first, second = jobs(world)
    assert first == second


def test_the_deadline_of_the_start_counts_from_the_last_admission() -> None:
    world = running(startupDeadlineSeconds=60)
    world.queue_takes()
    empty(world)
    world.wait(3600)
    world.queue_gives()
    world.look()
    admitted = world.now
    while not world.status.failure:
        assert world.due
        world.now = max(world.due, world.now + timedelta(seconds=1))
        world.look()
    assert world.now - admitted == timedelta(seconds=60)


def test_what_it_ran_and_cost_is_counted_once_however_often_it_is_looked_at() -> None:
    world = running(activeDeadlineSeconds=300)
    world.queue_takes()
    world.look()
    ran, cost = world.status.running_seconds, world.status.cost
    assert cost
    assert cost.cpu_seconds
    for _ in range(3):
        world.wait(10)
        world.look()
    assert (world.status.running_seconds, world.status.cost) == (ran, cost)


def test_a_head_of_before_that_is_still_seen_is_not_taken_for_the_new_one() -> None:
    world = running()
    before = dict(world.pods)
    world.queue_takes()
    empty(world)
    world.queue_gives()
    world.look(before)
    assert world.status.phase == Phase.QUEUED
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        "The RayCluster continues once its pods from before the suspension are gone."
    )
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


def test_a_cluster_that_is_let_in_before_its_pods_were_taken_goes_on_with_them() -> None:
    world = running()
    (head,) = world.pods
    world.queue_takes()
    world.look()
    assert world.status.phase == Phase.QUEUED
    world.queue_gives()
    world.look()
    assert world.status.phase == Phase.RUNNING
    assert world.status.cluster
    assert world.status.cluster.head_uid == head
    world.run(until=lambda it: it.at_rest)
    assert len(jobs(world)) == 1


def test_a_head_that_went_with_the_suspension_and_never_ends_holds_the_cluster_up_for_a_minute_only() -> None:
    world = running()
    world.queue_takes()
    world.kuberay()
    stuck = dict(world.pods)
    world.look()
    world.pods.clear()
    world.queue_gives()
    world.look(stuck)
    assert world.status.phase == Phase.QUEUED
    world.wait(61)
    world.look(stuck)
    assert world.status.phase == Phase.STARTING


def test_a_head_that_dies_after_its_cluster_was_let_in_again_ends_the_attempt() -> None:
    world = running()
    world.queue_takes()
    empty(world)
    world.queue_gives()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.head_dies()
    world.look()
    assert world.status.failed_attempts == 1
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_suspension_that_nobody_saw_is_none_the_less_no_failure() -> None:
    world = running()
    world.wait(5)
    world.queue_takes()
    while world.kuberay() or world.kubelet():
        pass
    world.wait(5)
    world.queue_gives()
    world.kuberay()
    world.look()
    assert world.status.failure is None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


@pytest.mark.parametrize("died_after", [1, 2, 3])
def test_a_half_made_cluster_that_was_suspended_for_a_moment_gets_what_it_lacks(died_after: int) -> None:
    world = World.of(samples=640, backoffLimit=0)
    world.look()
    world.kuberay()
    world.dies_at = len(world.carried) + died_after
    world.look()
    world.wait(1)
    world.queue_takes()
    world.look()
    world.queue_gives()
    world.dies_at = None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)


MOVES = st.sampled_from(["well", "look", "late", "takes", "gives", "kuberay", "kubelet", "dies", "wait"])


@settings(deadline=None, max_examples=300)
@given(st.lists(MOVES, max_size=60), st.booleans(), st.data())
def test_however_often_and_long_a_queue_takes_the_cluster_no_attempt_is_spent_and_no_deadline_runs(
    moves: list[str], named: bool, data: st.DataObject
) -> None:
    world = World.of(samples=640, backoffLimit=0, activeDeadlineSeconds=600, **({"queueName": "gpus"} if named else {}))
    late: list[dict[str, ObservedPod]] = [{}]
    for move in moves:
        match move:
            case "well":
                for _ in range(data.draw(st.integers(1, 12))):
                    world.step()
                late = [dict(world.pods)]
            case "look":
                world.look()
                late = [dict(world.pods)]
            case "late":
                late = late[data.draw(st.integers(0, len(late) - 1)) :]
                world.look(late[0])
            case "takes":
                world.wait(1)
                world.queue_takes()
            case "gives":
                world.queue_gives()
            case "kuberay":
                world.kuberay()
            case "kubelet":
                world.kubelet()
            case "wait":
                if world.sampling.status and world.status.phase is Phase.QUEUED:
                    world.wait(3600)
            case "dies":
                world.dies_at = len(world.carried) + data.draw(st.integers(0, 3))
        late.append(dict(world.pods))
    world.dies_at = None
    while world.kuberay() or world.kubelet():
        pass
    world.wait(1)
    world.queue_gives()
    world.look()
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.attempt, world.status.failed_attempts) == (1, 0)
