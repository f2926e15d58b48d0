"""A failed attempt: whether it is retried and when, and what happens to its cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.reconcile.actions import CreateCluster, DeleteCluster, Event
from ddpm_operator.reconcile.observed import Container, Waiting
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import World

Trouble = Callable[[World], object]


def running(**spec: object) -> World:
    world = World.of(**spec)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    return world


def fail_once(world: World) -> None:
    """Lets the driver fail once."""
    world.run(until=lambda it: it.driver_fails())
    world.run(until=lambda it: it.status.failure)


def test_backoff_grows_until_backoff_limit() -> None:
    world = World.of(backoffLimit=3)
    waits = []
    for _ in range(3):
        fail_once(world)
        failed, attempt = world.status.failure, world.status.attempt
        world.run(until=lambda it, attempt=attempt: it.status.attempt != attempt)
        assert failed
        assert failed.time
        waits.append((world.now - failed.time) // timedelta(seconds=10))
    fail_once(world)
    assert waits == [1, 2, 4]
    assert world.status.phase == Phase.FAILED
    assert world.status.attempt == 4
    world.run(until=lambda it: it.settled)
    assert not world.clusters
    assert not world.pods
    assert world.reasons.count(EventReason.ATTEMPT_FAILED) == 3
    assert world.reasons.count(EventReason.RETRYING) == 3
    assert world.reasons.count(EventReason.FAILED) == 1


def test_waiting_for_retry_says_when() -> None:
    world = World.of()
    fail_once(world)
    world.run(until=lambda it: it.condition(ConditionType.CLUSTER_READY).reason == "WaitingToRetry")
    assert world.status.failure
    assert world.status.failure.time
    due = world.status.failure.time + timedelta(seconds=10)
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        f"Attempt 2 begins at {due:%H:%M:%S} UTC; 3 attempts left."
    )
    assert world.condition(ConditionType.RUNNING).message == "Attempt 1 failed (WorkerLost)."


@pytest.mark.parametrize("reason", ["ModelNotFound", "ModelRejected", "OutputConflict", "InvalidSpec", "Unschedulable"])
def test_final_reasons_are_not_retried(reason: str) -> None:
    world = running()
    world.driver_fails(reason, "no such file: s3://models/unet.pt")
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.FAILED)
    assert world.status.attempt == 1
    assert world.status.failure
    assert world.status.failure.message == "No such file: s3://models/unet.pt."
    assert world.status.failure.hint == FailureReason(reason).hint
    assert world.condition(ConditionType.FAILED).reason == reason
    assert world.status.failure.hint in world.condition(ConditionType.FAILED).message


def test_raising_backoff_limit_retries_a_failed_sampling() -> None:
    world = running(backoffLimit=0)
    fail_once(world)
    world.run(until=lambda it: it.settled)
    world.edit(startupDeadlineSeconds=900)
    world.reconcile()
    assert world.holds(ConditionType.FAILED)
    world.edit(backoffLimit=1)
    world.reconcile()
    assert not world.holds(ConditionType.FAILED)
    assert world.status.completion_time is None
    assert world.status.attempt == 2
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_invalid_image_name_fails_at_once() -> None:
    world = World.of()
    world.reconcile()
    world.kuberay()
    (head,) = world.pods.values()
    world.change(head.uid, containers=(Container("ray-head", Waiting("InvalidImageName", "not a reference")),))
    world.reconcile()
    assert world.status.phase == Phase.FAILED
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.IMAGE_PULL_FAILED
    assert world.status.failure.message == f"The head pod {head.name} cannot get its image: not a reference."


def test_running_attempt_survives_a_lost_worker() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 2})
    world.run(until=lambda it: it.holds(ConditionType.RUNNING) and it.holds(ConditionType.CLUSTER_READY))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    waiting = Container("ray-worker", Waiting("InvalidImageName", "not a reference"))
    world.change(worker.uid, phase="Pending", ready=False, containers=(waiting,))
    world.reconcile()
    assert world.status.failure is None
    assert world.condition(ConditionType.CLUSTER_READY).reason == "ImagePullFailed"
    assert world.holds(ConditionType.RUNNING)


def test_failed_cluster_is_kept_for_keep_cluster_seconds() -> None:
    world = running(backoffLimit=0, keepClusterSeconds=120)
    fail_once(world)
    assert world.holds(ConditionType.FAILED)
    assert world.status.failure
    assert world.status.failure.time
    until = world.status.failure.time + timedelta(seconds=120)
    assert world.clusters
    kept = world.condition(ConditionType.CLEANED_UP)
    assert kept.reason == "Kept"
    assert kept.message.endswith("to look into the failure.")
    world.run(until=lambda it: not it.clusters)
    assert timedelta(0) <= world.now - until < timedelta(seconds=2)
    world.run(until=lambda it: it.settled)


def test_next_attempt_waits_for_the_kept_cluster() -> None:
    world = running(keepClusterSeconds=120)
    fail_once(world)
    failed = world.now
    world.run(until=lambda it: it.status.attempt == 2)
    assert world.now - failed >= timedelta(seconds=120)


def test_stuck_pod_delays_the_next_attempt_a_minute() -> None:
    world = running()
    world.driver_fails()
    world.run(until=lambda it: it.pods and all(pod.deleted for pod in it.pods.values()))
    begun = world.now
    while world.status.attempt == 1:
        world.wait(5)
        world.reconcile()
        assert world.now - begun < timedelta(seconds=70)
    assert world.now - begun >= timedelta(seconds=60)


def test_other_clusters_are_deleted() -> None:
    world = running()
    (own,) = world.clusters.values()
    strays = [
        replace(own, name="stray", uid="s1", attempt=7),
        replace(own, name="nameless", uid="s2", attempt=None),
    ]
    world.clusters |= {it.name: it for it in strays}
    deleted = [it for it in reconcile(world.observe(), world.now).actions if isinstance(it, DeleteCluster)]
    assert deleted == [DeleteCluster("stray", "s1"), DeleteCluster("nameless", "s2")]


def test_attempt_numbers_are_unique() -> None:
    world = World.of()
    for _ in range(3):
        fail_once(world)
        world.run(until=lambda it: it.drivers)
    numbers = [it.attempt.number for it in world.executed if isinstance(it, CreateCluster)]
    assert numbers == sorted(set(numbers))


def test_long_event_message_is_clipped() -> None:
    world = running()
    world.driver_fails(message="größer " * 300)
    world.run(until=lambda it: it.status.failure)
    (event,) = [it for it in world.executed if isinstance(it, Event) and it.reason == EventReason.ATTEMPT_FAILED]
    assert 1020 < len(event.message.encode()) <= 1024
    assert event.message.endswith("…")
