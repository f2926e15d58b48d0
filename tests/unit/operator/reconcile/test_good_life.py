"""The life of a job that goes well, as its user sees it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from ddpm_operator.api import ConditionType, EventReason, Phase
from ddpm_operator.api.status import Result
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
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
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, HeadResponse
from ddpm_operator.reconcile.progress_document import FinishedOutcome
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import IMAGE_ID, World, sha

LARGE = {"samples": 2000, "resources": {"maxWorkers": 2}}


@pytest.fixture
def world() -> World:
    return World.of()


@pytest.fixture
def done(world: World) -> World:
    world.run(until=lambda it: it.at_rest)
    return world


def test_it_goes_from_starting_through_running_to_succeeded(done: World) -> None:
    phases = list(dict.fromkeys(status.phase for status in done.history))
    assert phases == [Phase.STARTING, Phase.RUNNING, Phase.SUCCEEDED]


def test_at_the_end_the_status_says_where_the_samples_are_and_what_it_took(done: World) -> None:
    status = done.status
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


def test_every_condition_is_a_sentence_a_person_understands(done: World) -> None:
    said = {it.type.value: (it.status, it.reason, it.message) for it in done.status.conditions}
    assert said == {
        "Accepted": ("True", "Planned", "100 samples of builtin://mnist on cpu, by the head alone."),
        "ClusterReady": ("False", "Complete", "100 samples are stored at pvc://digits-output."),
        "Running": ("False", "Complete", "100 samples are stored at pvc://digits-output."),
        "Complete": ("True", "AllSamplesStored", "100 samples are stored at pvc://digits-output."),
        "Failed": ("False", "InProgress", "The sampling has not failed."),
        "Suspended": ("False", "NotAsked", "spec.suspend is false."),
        "CleanedUp": ("True", "NothingLeft", "No RayCluster and no pod is left."),
    }


def test_each_event_is_told_once(done: World) -> None:
    assert done.reasons == [
        EventReason.ACCEPTED,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_nothing_of_an_attempt_exists_before_the_status_knows_of_it_and_no_pod_starts_unfenced(
    done: World,
) -> None:
    order = [WriteStatus, EnsureClaim, CreateCluster, CreateNetworkPolicy, CreateSecret, SubmitJob, DeleteCluster]
    first = {kind: next(n for n, it in enumerate(done.carried) if isinstance(it, kind)) for kind in order}
    assert sorted(first.values()) == list(first.values())


def test_the_result_is_written_down_before_the_cluster_is_deleted(world: World) -> None:
    world.run(until=lambda it: it.drivers and next(iter(it.drivers.values())).outcome)
    before = len(world.carried)
    world.dies_at = before + 3
    world.look()
    assert [type(it) for it in world.carried[before:]] == [WritePreview, WriteStatus, Event]
    assert world.ended
    assert world.clusters
    world.run(until=lambda it: it.at_rest)
    assert world.reasons.count(EventReason.COMPLETED) == 1


def test_the_job_is_asked_for_as_soon_as_the_head_is_ready_not_when_every_worker_is() -> None:
    world = World.of(**LARGE)
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.carried))
    assert world.status.plan
    assert world.status.plan.workers == 2
    assert not all(pod.ready for pod in world.pods.values())
    assert world.condition(ConditionType.CLUSTER_READY).message == "The head is ready, and 0 of 2 workers."


def test_the_job_is_asked_for_when_the_head_answers_even_if_it_is_not_called_ready_yet(world: World) -> None:
    world.answers_early = True
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.carried))
    assert not any(pod.ready for pod in world.pods.values())
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_head_that_starts_and_does_not_answer_yet_is_asked_again_within_a_second(world: World) -> None:
    world.run(until=lambda it: any(pod.phase == "Running" for pod in it.pods.values()))
    world.look()
    assert world.due
    assert world.due - world.now <= timedelta(seconds=0.5)


def test_the_younger_an_attempt_the_sooner_it_is_asked_again(world: World) -> None:
    world.run(until=lambda it: any(isinstance(action, SubmitJob) for action in it.carried))
    for age, pause in ((4, 0.25), (20, 0.5), (300, 1.0)):
        assert world.status.cluster
        world.now = world.status.cluster.start_time + timedelta(seconds=age)
        decision = reconcile(world.observe(), world.now)
        assert decision.requeue_after == timedelta(seconds=pause)


def test_cleaned_up_is_true_only_when_the_last_pod_is_gone(world: World) -> None:
    world.run(until=lambda it: it.ended and not it.clusters)
    world.look()
    assert world.pods
    assert world.condition(ConditionType.CLEANED_UP).reason == "Deleting"
    world.run(until=lambda it: it.at_rest)
    assert not world.pods


def test_a_finished_sampling_costs_nothing(done: World) -> None:
    decision = reconcile(done.observe(), done.now + timedelta(days=1))
    assert decision.actions == ()
    assert decision.requeue_after is None


def test_the_cluster_of_a_sampling_that_is_being_deleted_goes_though_a_finalizer_keeps_the_sampling(
    world: World,
) -> None:
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    before, written = len(world.carried), len(world.history)
    world.asked_to_go()
    world.look()
    (deletion,) = world.carried[before:]
    assert isinstance(deletion, DeleteCluster)
    assert world.clusters[deletion.name].deleted
    for _ in range(5):
        world.collect_garbage()
        world.kubelet()
        world.look()
    assert not world.clusters
    assert len(world.carried) == before + 1
    assert len(world.history) == written
    assert world.due is None


def test_the_preview_is_copied_at_most_once_in_thirty_seconds_and_written_at_the_end() -> None:
    world = World.of(samples=20_000)
    world.run(until=lambda it: it.at_rest)
    copies = [it for it in world.carried if isinstance(it, CopyPreview)]
    begun = next(it.progress for it in world.history if it.phase == Phase.RUNNING)
    assert begun
    assert begun.last_update_time
    assert world.status.completion_time
    seconds = (world.status.completion_time - begun.last_update_time).total_seconds()
    assert 2 <= len(copies) <= seconds / 30 + 1
    assert [it.png for it in world.carried if isinstance(it, WritePreview)] == [b"hello"]


def test_a_second_look_at_the_same_changes_nothing(world: World) -> None:
    world.look()
    world.look()
    written = len(world.history)
    world.look()
    assert len(world.history) == written


def test_the_cost_counts_the_cpus_of_all_pods_for_as_long_as_the_head_had_a_node() -> None:
    world = World.of(**LARGE)
    world.run(until=lambda it: it.ended)
    begun = next(it.cluster.scheduled_time for it in world.history if it.cluster and it.cluster.scheduled_time)
    assert world.status.completion_time
    seconds = (world.status.completion_time - begun).total_seconds()
    assert world.status.cost
    assert world.status.cost.cpu_seconds == (1 + 2 * 2) * seconds


def test_the_cost_counts_gpus_too() -> None:
    world = World.of(resources={"gpus": 1})
    world.run(until=lambda it: it.ended)
    begun = next(it.cluster.scheduled_time for it in world.history if it.cluster and it.cluster.scheduled_time)
    assert world.status.completion_time
    assert world.status.cost
    assert world.status.cost.gpu_seconds == (world.status.completion_time - begun).total_seconds()


def test_the_head_alone_reads_a_claim_that_one_pod_can_mount_and_every_pod_one_for_many() -> None:
    modes = {"ReadWriteOnce": False, "ReadWriteMany": True}
    for mode, shared in modes.items():
        world = World.of(output={"claim": {"accessModes": [mode]}})
        world.look()
        made = next(it for it in world.carried if isinstance(it, CreateCluster))
        assert made.attempt.shared_output is shared


def test_a_preview_that_could_not_be_written_is_not_named_and_keeps_nothing_from_its_end() -> None:
    world = World.of()
    refused = ActionError(ActionErrorKind.PREVIEW, "write the preview digits-preview", "another manager owns it")
    world.refuse = lambda action: refused if isinstance(action, (WritePreview, CopyPreview)) else None
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.output == Result(uri="pvc://digits-output", manifest_sha256=sha(100))


def test_a_preview_that_could_not_be_copied_is_tried_again_half_a_minute_later() -> None:
    world = World.of(**LARGE)
    tried: list[datetime] = []

    def refuse(action: Action) -> ActionError | None:
        if isinstance(action, CopyPreview):
            tried.append(world.now)
            return ActionError(ActionErrorKind.PREVIEW, "write the preview", "timeout")
        return None

    world.refuse = refuse
    world.run(until=lambda it: it.holds(ConditionType.RUNNING) and it.stored)
    for _ in range(8):
        world.wait(5)
        world.look()
    assert [(later - first).total_seconds() // 10 for first, later in pairwise(tried)] == [3]
    assert world.status.output
    assert world.status.output.grid is None


@pytest.mark.parametrize("grid", ["é", "no base64!", ""])
def test_a_preview_that_is_no_picture_does_not_keep_a_sampling_from_its_end(world: World, grid: str) -> None:
    world.run(until=lambda it: it.sampling.status is not None and it.status.phase == Phase.RUNNING)
    observed = world.observe()
    assert isinstance(observed.head_poll, HeadResponse)
    assert observed.head_poll.progress
    outcome = FinishedOutcome(manifest_sha256=sha(100), samples=100, sampled=100, output="/output", grid=grid)
    told = replace(observed.head_poll, progress=observed.head_poll.progress.model_copy(update={"outcome": outcome}))
    actions = reconcile(replace(observed, head_poll=told), world.now).actions
    assert [it.status.phase for it in actions if isinstance(it, WriteStatus)] == [Phase.SUCCEEDED]
    assert not [it for it in actions if isinstance(it, WritePreview)]
