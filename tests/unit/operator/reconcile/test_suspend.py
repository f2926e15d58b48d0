"""spec.suspend: true deletes the cluster and keeps the samples, false continues with a new attempt."""

from __future__ import annotations

from ddpm_operator.api import ConditionType, EventReason, Phase
from tests.fakes.world import IMAGE, World


def suspended() -> World:
    world = World.of(samples=640)
    world.run(until=lambda it: it.stored >= 128)
    world.edit(suspend=True)
    world.run(until=lambda it: it.holds(ConditionType.CLEANED_UP))
    return world


def test_suspend_deletes_the_cluster_and_keeps_samples() -> None:
    world = suspended()
    assert world.status.phase == Phase.SUSPENDED
    assert world.holds(ConditionType.SUSPENDED)
    assert not world.clusters
    assert not world.pods
    assert world.status.progress
    assert world.status.progress.done >= 64
    assert world.status.failure is None
    assert world.status.completion_time is None


def test_resume_begins_a_new_attempt_without_failure() -> None:
    world = suspended()
    world.edit(suspend=False)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert not world.holds(ConditionType.SUSPENDED)
    assert world.status.attempt == 2
    assert world.status.failed_attempts == 0
    assert world.reasons.count(EventReason.SUSPENDED) == 1
    assert world.reasons.count(EventReason.RESUMED) == 1


def test_new_suspended_sampling_creates_nothing() -> None:
    world = World.of(suspend=True)
    world.reconcile()
    assert world.status.phase == Phase.SUSPENDED
    assert not world.clusters
    assert world.holds(ConditionType.CLEANED_UP)
    world.edit(suspend=False)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_suspended_sampling_names_its_image_provisionally() -> None:
    world = World.of(suspend=True)
    world.reconcile()
    assert world.status.image == IMAGE.reference
    world.edit(suspend=False)
    world.reconcile()
    assert (world.status.attempt, world.status.image) == (1, None)


def test_resume_waits_for_the_last_pod() -> None:
    world = World.of(samples=640)
    world.run(until=lambda it: it.stored >= 128)
    world.edit(suspend=True)
    world.reconcile()
    world.edit(suspend=False)
    world.reconcile()
    assert world.pods
    assert all(it.deleted for it in world.clusters.values())
    assert world.status.phase == Phase.PENDING
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        "The next attempt waits until all pods of attempt 1 are gone."
    )
    world.run(until=lambda it: it.settled)


def test_finished_sampling_is_not_suspended() -> None:
    world = World.of()
    world.run(until=lambda it: it.settled)
    world.edit(suspend=True)
    world.reconcile()
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.phase == Phase.SUCCEEDED
