"""A run without failures: status, conditions, events, order of actions, polling and cost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, EventReason, Phase
from ddpm_operator.api.status import Result
from ddpm_operator.reconcile.actions import (
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    DeleteCluster,
    EnsureClaim,
    Event,
    SubmitJob,
    WritePreview,
    WriteStatus,
)
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import IMAGE_ID, World, sha

LARGE = {"samples": 2000, "resources": {"maxWorkers": 2}}


@pytest.fixture
def world() -> World:
    return World.of()


@pytest.fixture
def finished(world: World) -> World:
    world.run(until=lambda it: it.settled)
    return world


def test_phases_are_starting_running_succeeded(finished: World) -> None:
    phases = list(dict.fromkeys(status.phase for status in finished.history))
    assert phases == [Phase.STARTING, Phase.RUNNING, Phase.SUCCEEDED]


def test_final_status_has_output_and_cost(finished: World) -> None:
    status = finished.status
    assert status.output == Result(uri="pvc://digits-output", manifest_sha256=sha(100), grid="digits-c3f8ec0a-preview")
    assert status.progress
    assert (status.progress.done, status.progress.total, status.progress.percent) == (100, 100, 100)
    assert status.image == IMAGE_ID
    assert status.cluster is None
    assert status.failure is None
    assert status.plan
    assert (status.plan.batch_size, status.plan.shards) == (64, 2)
    assert status.cost
    assert status.completion_time
    assert status.cost.cpu_seconds > 0
    assert status.cost.gpu_seconds == 0


def test_conditions_have_readable_messages(finished: World) -> None:
    conditions = {it.type.value: (it.status, it.reason, it.message) for it in finished.status.conditions}
    assert conditions == {
        "Accepted": ("True", "Planned", "100 samples of builtin://mnist on cpu, by the head alone."),
        "ClusterReady": ("False", "Complete", "100 samples are stored at pvc://digits-output."),
        "Running": ("False", "Complete", "100 samples are stored at pvc://digits-output."),
        "Complete": ("True", "AllSamplesStored", "100 samples are stored at pvc://digits-output."),
        "Failed": ("False", "InProgress", "The sampling has not failed."),
        "Suspended": ("False", "NotAsked", "spec.suspend is false."),
        "CleanedUp": ("True", "NothingLeft", "No RayCluster and no pod is left."),
    }


def test_each_event_is_created_once(finished: World) -> None:
    assert finished.reasons == [
        EventReason.ACCEPTED,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_objects_are_created_in_a_safe_order(
    finished: World,
) -> None:
    order = [WriteStatus, EnsureClaim, CreateCluster, CreateNetworkPolicy, CreateSecret, SubmitJob, DeleteCluster]
    first = {kind: next(n for n, it in enumerate(finished.executed) if isinstance(it, kind)) for kind in order}
    assert sorted(first.values()) == list(first.values())


def test_result_is_written_before_the_cluster_is_deleted(world: World) -> None:
    world.run(until=lambda it: it.drivers and next(iter(it.drivers.values())).outcome)
    before = len(world.executed)
    world.crash_at = before + 3
    world.reconcile()
    assert [type(it) for it in world.executed[before:]] == [WritePreview, WriteStatus, Event]
    assert world.finished
    assert world.clusters
    world.run(until=lambda it: it.settled)
    assert world.reasons.count(EventReason.COMPLETED) == 1


def test_driver_is_submitted_before_workers_are_ready() -> None:
    world = World.of(**LARGE)
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.executed))
    assert world.status.plan
    assert world.status.plan.workers == 2
    assert not all(pod.ready for pod in world.pods.values())
    assert world.condition(ConditionType.CLUSTER_READY).message == "The head and 0 of 2 workers are ready."


def test_driver_is_submitted_to_a_head_not_yet_ready(world: World) -> None:
    world.answers_early = True
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.executed))
    assert not any(pod.ready for pod in world.pods.values())
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_starting_head_is_polled_within_a_second(world: World) -> None:
    world.run(until=lambda it: any(pod.phase == "Running" for pod in it.pods.values()))
    world.reconcile()
    assert world.requeue_at
    assert world.requeue_at - world.now <= timedelta(seconds=0.5)


def test_poll_interval_grows_with_the_attempts_age(world: World) -> None:
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.executed))
    for age, pause in ((4, 0.25), (20, 0.5), (300, 1.0)):
        assert world.status.cluster
        world.now = world.status.cluster.start_time + timedelta(seconds=age)
        decision = reconcile(world.observe(), world.now)
        assert decision.requeue_after == timedelta(seconds=pause)


def test_cleaned_up_waits_for_the_last_pod(world: World) -> None:
    world.run(until=lambda it: it.finished and not it.clusters)
    world.reconcile()
    assert world.pods
    assert world.condition(ConditionType.CLEANED_UP).reason == "Deleting"
    world.run(until=lambda it: it.settled)
    assert not world.pods


def test_finished_sampling_needs_no_actions(finished: World) -> None:
    decision = reconcile(finished.observe(), finished.now + timedelta(days=1))
    assert decision.actions == ()
    assert decision.requeue_after is None


def test_cluster_is_deleted_despite_a_finalizer(
    world: World,
) -> None:
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    before, written = len(world.executed), len(world.history)
    world.delete_with_finalizer()
    world.reconcile()
    (deletion,) = world.executed[before:]
    assert isinstance(deletion, DeleteCluster)
    assert world.clusters[deletion.name].deleted
    for _ in range(5):
        world.collect_garbage()
        world.kubelet()
        world.reconcile()
    assert not world.clusters
    assert len(world.executed) == before + 1
    assert len(world.history) == written
    assert world.requeue_at is None


def test_repeated_pass_changes_nothing(world: World) -> None:
    world.reconcile()
    world.reconcile()
    written = len(world.history)
    world.reconcile()
    assert len(world.history) == written


def test_cost_counts_cpus_of_all_pods() -> None:
    world = World.of(**LARGE)
    world.run(until=lambda it: it.finished)
    begun = next(it.cluster.scheduled_time for it in world.history if it.cluster and it.cluster.scheduled_time)
    assert world.status.completion_time
    seconds = (world.status.completion_time - begun).total_seconds()
    assert world.status.cost
    assert world.status.cost.cpu_seconds == (1 + 2 * 2) * seconds


def test_cost_counts_gpus() -> None:
    world = World.of(resources={"gpus": 1})
    world.run(until=lambda it: it.finished)
    begun = next(it.cluster.scheduled_time for it in world.history if it.cluster and it.cluster.scheduled_time)
    assert world.status.completion_time
    assert world.status.cost
    assert world.status.cost.gpu_seconds == (world.status.completion_time - begun).total_seconds()


def test_access_mode_decides_which_pods_mount_the_claim() -> None:
    modes = {"ReadWriteOnce": False, "ReadWriteMany": True}
    for mode, shared in modes.items():
        world = World.of(output={"claim": {"accessModes": [mode]}})
        world.reconcile()
        made = next(it for it in world.executed if isinstance(it, CreateCluster))
        assert made.attempt.shared_output is shared
