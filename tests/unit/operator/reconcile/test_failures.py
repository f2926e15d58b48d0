"""An attempt that fails: why, whether there is another one, and what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from ddpm_operator.api import ConditionType, EventReason, FailureReason, Phase
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import CreateCluster, DeleteCluster, Event, SubmitJob
from ddpm_operator.reconcile.observed import Container, RayJob, Terminated, Waiting
from ddpm_operator.reconcile.reconcile import reconcile
from tests.fakes.world import World

Trouble = Callable[[World], object]


def running(**spec: object) -> World:
    world = World.of(**spec)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    return world


def fails(world: World) -> None:
    """The driver fails once."""
    world.run(until=lambda it: it.driver_fails())
    world.run(until=lambda it: it.status.failure)


HEADS: dict[str, tuple[Trouble, str, str]] = {
    "ended": (
        lambda it: it.head_dies(),
        "HeadLost",
        "is lost: Error, exit code 1.",
    ),
    "ended for its memory": (
        lambda it: it.head_dies("OOMKilled", 137),
        "OutOfMemory",
        "needed more memory than its limit of 4Gi.",
    ),
    "deleted": (lambda it: it.pod_deleted(), "HeadLost", "is lost: it was deleted."),
    "gone": (lambda it: it.pods.clear(), "HeadLost", "-1 is gone."),
    "deleted with its cluster": (
        lambda it: it.cluster_deleted(),
        "HeadLost",
        "was deleted, and not by the operator.",
    ),
}


def ended(**fields: object) -> Trouble:
    """The head has failed, and KubeRay has deleted it, before the operator looks."""

    def trouble(world: World) -> None:
        (head,) = world.pods.values()
        world.change(head.uid, phase="Failed", ready=False, **fields)
        assert world.kuberay()

    return trouble


def container(reason: str, code: int, message: str = "") -> tuple[Container, ...]:
    return (Container("ray-head", Terminated(reason, code, message)),)


NO_RAY = "/bin/bash: line 1: ulimit: no\n/bin/bash: line 1: ray: command not found\n"
DELETED_AT_ONCE: dict[str, tuple[Trouble, str, str]] = {
    "for its memory": (
        ended(containers=container("OOMKilled", 137)),
        "OutOfMemory",
        "needed more memory than its limit of 4Gi.",
    ),
    "by the kubelet": (
        ended(reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        "HeadLost",
        "is lost: Evicted: The node was low on resource: ephemeral-storage.",
    ),
    "for another pod": (
        ended(containers=container("OOMKilled", 143), disruption="PreemptionByScheduler: it was preempted"),
        "HeadLost",
        "is lost: PreemptionByScheduler: it was preempted.",
    ),
    "as it could not be started": (
        ended(containers=container("StartError", 128, 'exec: "/bin/bash": no such file or directory')),
        "HeadLost",
        'is lost: StartError, exit code 128: exec: "/bin/bash": no such file or directory.',
    ),
    "by itself": (
        ended(containers=container("Error", 127, NO_RAY)),
        "HeadLost",
        "is lost: Error, exit code 127: /bin/bash: line 1: ray: command not found.",
    ),
}


@pytest.mark.parametrize("what", DELETED_AT_ONCE)
def test_what_a_head_died_of_is_told_though_it_is_deleted_before_anybody_looks(what: str) -> None:
    trouble, reason, message = DELETED_AT_ONCE[what]
    world = running()
    trouble(world)
    assert not world.pods
    world.look()
    assert world.status.failure
    assert (world.status.failure.reason, world.status.failure.message.endswith(message)) == (reason, True), (
        world.status.failure.message
    )


def test_the_end_of_a_head_of_before_is_none_of_the_present_ones() -> None:
    world = running()
    world.head_dies("OOMKilled", 137)
    world.kuberay()
    world.run(until=lambda it: it.status.attempt == 2 and it.holds(ConditionType.RUNNING))
    world.pods.clear()
    world.look()
    assert world.status.failure
    assert world.status.failure.message.endswith("-2 is gone.")


@pytest.mark.parametrize("what", HEADS)
def test_a_head_that_is_lost_ends_the_attempt_and_the_next_one_finishes(what: str) -> None:
    trouble, reason, message = HEADS[what]
    world = running()
    assert trouble(world) is not False
    world.due = world.now
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == reason
    assert world.status.failure.message.endswith(message)
    assert world.status.phase == Phase.PENDING
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2


def test_another_head_pod_under_the_same_cluster_ends_the_attempt() -> None:
    world = running()
    (old,) = world.pods.values()
    world.pods = {"other": replace(old, uid="other", name="other-head")}
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert all(it.deleted for it in world.clusters.values())


def test_a_head_whose_container_was_restarted_ends_the_attempt() -> None:
    world = running()
    (head,) = world.pods.values()
    (container,) = head.containers
    world.change(head.uid, containers=(replace(container, restarts=1),))
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST


def test_attempts_wait_longer_each_time_and_end_after_backoff_limit() -> None:
    world = World.of(backoffLimit=3)
    waits = []
    for _ in range(3):
        fails(world)
        failed, attempt = world.status.failure, world.status.attempt
        world.run(until=lambda it, attempt=attempt: it.status.attempt != attempt)
        assert failed
        assert failed.time
        waits.append((world.now - failed.time) // timedelta(seconds=10))
    fails(world)
    assert waits == [1, 2, 4]
    assert world.status.phase == Phase.FAILED
    assert world.status.attempt == 4
    world.run(until=lambda it: it.at_rest)
    assert not world.clusters
    assert not world.pods
    assert world.reasons.count(EventReason.ATTEMPT_FAILED) == 3
    assert world.reasons.count(EventReason.RETRYING) == 3
    assert world.reasons.count(EventReason.FAILED) == 1


def test_what_waits_for_another_attempt_says_so_and_says_when() -> None:
    world = World.of()
    fails(world)
    world.run(until=lambda it: it.condition(ConditionType.CLUSTER_READY).reason == "WaitingToRetry")
    assert world.status.failure
    assert world.status.failure.time
    due = world.status.failure.time + timedelta(seconds=10)
    assert world.condition(ConditionType.CLUSTER_READY).message == (
        f"Attempt 2 begins at {due:%H:%M:%S} UTC; 3 attempts left."
    )
    assert world.condition(ConditionType.RUNNING).message == "Attempt 1 failed (WorkerLost)."


@pytest.mark.parametrize("reason", ["ModelNotFound", "ModelRejected", "OutputConflict", "InvalidSpec", "Unschedulable"])
def test_what_another_attempt_would_meet_again_is_not_tried_again(reason: str) -> None:
    world = running()
    world.driver_fails(reason, "no such file: s3://models/unet.pt")
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.FAILED)
    assert world.status.attempt == 1
    assert world.status.failure
    assert world.status.failure.message == "No such file: s3://models/unet.pt."
    assert world.status.failure.hint == FailureReason(reason).hint
    assert world.condition(ConditionType.FAILED).reason == reason
    assert world.status.failure.hint in world.condition(ConditionType.FAILED).message


def test_a_failed_sampling_is_tried_again_when_backoff_limit_is_raised_and_only_then() -> None:
    world = running(backoffLimit=0)
    fails(world)
    world.run(until=lambda it: it.at_rest)
    world.edit(startupDeadlineSeconds=900)
    world.look()
    assert world.holds(ConditionType.FAILED)
    world.edit(backoffLimit=1)
    world.look()
    assert not world.holds(ConditionType.FAILED)
    assert world.status.completion_time is None
    assert world.status.attempt == 2
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_a_word_that_is_in_no_list_is_the_drivers_failure() -> None:
    world = running(backoffLimit=0)
    world.driver_fails("Gremlins", "they are in the machine")
    world.run(until=lambda it: it.ended)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DRIVER_FAILED


def test_a_lost_worker_that_was_ended_for_its_memory_is_out_of_memory() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1})
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    (container,) = worker.containers
    world.change(worker.uid, containers=(replace(container, restarts=1, last_termination=Terminated("OOMKilled", 137)),))
    fails(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.OUT_OF_MEMORY
    assert worker.name in world.status.failure.message


def test_a_driver_that_got_no_workers_fails_for_what_their_pods_wait_for() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1})
    world.run(until=lambda it: it.drivers and any(driver.jobs for driver in it.drivers.values()))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    world.change(worker.uid, unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    world.driver()
    world.driver_fails("Unschedulable", "no worker came within 600 s")
    world.look()
    assert world.status.failure
    assert world.status.failure.message == (
        f"No worker came within 600 s. The worker pod {worker.name} fits no node: "
        "0/1 nodes are available: 1 Insufficient cpu."
    )


def test_a_driver_whose_workers_are_gone_says_what_their_successors_wait_for() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1}, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    (cluster,) = world.clusters.values()
    full = 'pods "digits-worker" is forbidden: exceeded quota: few, requested: count/pods=1'
    world.clusters[cluster.name] = replace(cluster, replica_failure=full)
    world.driver_fails("WorkerLost", "no node has had room for a worker for 600 s; each needs 1 CPU")
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.WORKER_LOST
    assert world.status.failure.message == (
        f"No node has had room for a worker for 600 s; each needs 1 CPU. KubeRay cannot create the pods: {full}."
    )


def test_pods_that_will_never_start_end_the_attempt_at_once() -> None:
    world = World.of()
    world.look()
    world.kuberay()
    (head,) = world.pods.values()
    world.change(head.uid, containers=(Container("ray-head", Waiting("InvalidImageName", "not a reference")),))
    world.look()
    assert world.status.phase == Phase.FAILED
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.IMAGE_PULL_FAILED
    assert world.status.failure.message == f"The head pod {head.name} cannot get its image: not a reference."


def test_a_worker_that_cannot_come_back_does_not_end_a_run_that_goes_on_without_it() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 2})
    world.run(until=lambda it: it.holds(ConditionType.RUNNING) and it.holds(ConditionType.CLUSTER_READY))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    waiting = Container("ray-worker", Waiting("InvalidImageName", "not a reference"))
    world.change(worker.uid, phase="Pending", ready=False, containers=(waiting,))
    world.look()
    assert world.status.failure is None
    assert world.condition(ConditionType.CLUSTER_READY).reason == "ImagePullFailed"
    assert world.holds(ConditionType.RUNNING)


def only_job(world: World, **fields: object) -> None:
    """Ray's word of the only job, with no driver to be heard."""
    (driver,) = world.drivers.values()
    driver.jobs = [replace(driver.jobs[0], **fields)]  # type: ignore[arg-type]
    driver.outcome = None


def test_a_driver_that_ended_well_unheard_is_asked_again() -> None:
    world = running()
    world.stored = world.manifest = 100
    only_job(world, state="SUCCEEDED")
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    ids = [it.id for it in world.carried if isinstance(it, SubmitJob)]
    assert ids == [ids[0], f"{ids[0]}-r2"]


def test_a_driver_that_is_never_heard_is_not_asked_for_ever() -> None:
    world = running(backoffLimit=0)
    (driver,) = world.drivers.values()
    name = driver.jobs[0].id
    driver.jobs = [RayJob(job_id, "SUCCEEDED", 100) for job_id in (name, f"{name}-r2", f"{name}-r3")]
    world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DRIVER_FAILED
    assert world.status.failure.message == ("The driver succeeded 3 times, but its result could not be read.")


def test_a_driver_that_failed_unheard_is_believed_by_the_last_line_of_its_log() -> None:
    world = running()
    log = (
        'loading\n{"event": "error", "reason": "StorageFailed", "exitCode": 4, "message": "the disk is full", '
        '"hint": "make room"}\nsee https://user:secret@example.com\n'
    )
    only_job(world, state="FAILED", message="exit code 4", log=log)
    world.look()
    failure = world.status.failure
    assert failure
    assert (failure.reason, failure.message, failure.hint) == ("StorageFailed", "The disk is full.", "Make room.")
    assert "secret" not in failure.log_tail
    assert "loading" in failure.log_tail


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("StorageFailed", "s3://b/c cannot be listed: there are no credentials"),
        ("ModelNotFound", "s3://b/m.pt cannot be read: Unable to locate credentials"),
    ],
)
def test_who_has_named_no_credentials_is_told_where_and_whether_the_nodes_are_open(reason: str, message: str) -> None:
    for cloud_identity in (False, True):
        world = running()
        world.limits = Limits(cloud_identity=cloud_identity)
        world.driver_fails(reason, message, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        world.look()
        assert world.status.failure
        hint = world.status.failure.hint
        assert hint.startswith("Name a Secret with AWS_ACCESS_KEY_ID")
        assert "in spec.credentialsSecretRef" in hint
        assert ("allowed.cloudIdentity" in hint) is not cloud_identity


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("use the same flags as then, or give --overwrite", FailureReason.STORAGE_FAILED.hint),
        ("free some space there, then run the same command again", FailureReason.STORAGE_FAILED.hint),
        ("", FailureReason.STORAGE_FAILED.hint),
        ("create the bucket, or correct the URI", "Create the bucket, or correct the URI."),
    ],
)
def test_what_to_do_is_said_in_a_samplings_own_terms(said: str, hint: str) -> None:
    world = running()
    world.driver_fails("StorageFailed", "4 of 8 are kept in /output; run the same command again to resume", said)
    world.look()
    assert world.status.failure
    assert (world.status.failure.message, world.status.failure.hint) == ("4 of 8 are kept in /output.", hint)


def test_a_driver_that_failed_without_a_word_is_known_by_the_end_of_its_log() -> None:
    world = running()
    only_job(world, state="FAILED", message="Job entrypoint exited with 139", log="x\n" * 5000 + "Segmentation fault")
    world.look()
    failure = world.status.failure
    assert failure
    assert failure.reason == FailureReason.DRIVER_FAILED
    assert failure.message == "The driver ended without reporting an error: Job entrypoint exited with 139."
    assert failure.log_tail.endswith("x\nSegmentation fault")
    assert len(failure.log_tail.encode()) <= 2048


def test_a_job_that_ray_ended_for_want_of_memory_is_out_of_memory() -> None:
    world = running(backoffLimit=0)
    said = "Unexpected error occurred: 2 worker(s) were killed due to the node running low on memory. Memory on the\n"
    only_job(world, state="FAILED", message=f"{said}node was 1.50GB used / 1.50GB limit\nOOM kill reason: usage")
    world.look()
    failure = world.status.failure
    assert failure
    assert failure.reason == FailureReason.OUT_OF_MEMORY
    assert "running low on memory" in failure.message
    assert failure.message.endswith("1.50GB used / 1.50GB limit.")


def test_a_job_that_somebody_stopped_is_tried_again() -> None:
    world = running()
    only_job(world, state="STOPPED")
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2


def test_a_head_that_answers_nobody_for_five_minutes_is_lost() -> None:
    world = running()
    world.silent_since = world.now
    (head,) = world.pods.values()
    blind = {head.uid: head}
    world.pods = {}
    for _ in range(299):
        world.wait(1)
        world.look(blind)
        assert world.status.failure is None
    world.wait(1)
    world.look(blind)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert world.status.failure.message == "The head has not answered for 5m00s: connection refused."


def test_a_head_on_a_node_that_is_gone_is_lost_though_nobody_takes_the_pod_away() -> None:
    world = running(backoffLimit=0)
    (head,) = world.pods.values()
    world.change(head.uid, ready=False)
    world.look()
    for _ in range(60):
        assert world.status.failure is None
        world.wait(5)
        world.look()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert world.status.failure.message == "The head has not answered for 5m00s: connection refused."


def test_a_failed_attempts_cluster_is_kept_as_long_as_asked_for_and_then_goes() -> None:
    world = running(backoffLimit=0, keepClusterSeconds=120)
    fails(world)
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
    world.run(until=lambda it: it.at_rest)


def test_the_next_attempt_waits_until_a_kept_cluster_is_gone() -> None:
    world = running(keepClusterSeconds=120)
    fails(world)
    failed = world.now
    world.run(until=lambda it: it.status.attempt == 2)
    assert world.now - failed >= timedelta(seconds=120)


def test_a_pod_that_never_ends_on_a_lost_node_holds_the_next_attempt_up_for_a_minute_only() -> None:
    world = running()
    world.driver_fails()
    world.run(until=lambda it: it.pods and all(pod.deleted for pod in it.pods.values()))
    begun = world.now
    while world.status.attempt == 1:
        world.wait(5)
        world.look()
        assert world.now - begun < timedelta(seconds=70)
    assert world.now - begun >= timedelta(seconds=60)


def test_clusters_that_are_not_the_present_attempts_are_deleted() -> None:
    world = running()
    (own,) = world.clusters.values()
    strays = [
        replace(own, name="stray", uid="s1", attempt=7),
        replace(own, name="nameless", uid="s2", attempt=None),
    ]
    world.clusters |= {it.name: it for it in strays}
    deleted = [it for it in reconcile(world.observe(), world.now).actions if isinstance(it, DeleteCluster)]
    assert deleted == [DeleteCluster("stray", "s1"), DeleteCluster("nameless", "s2")]


def test_an_attempts_number_is_never_used_twice() -> None:
    world = World.of()
    for _ in range(3):
        fails(world)
        world.run(until=lambda it: it.drivers)
    numbers = [it.attempt.number for it in world.carried if isinstance(it, CreateCluster)]
    assert numbers == sorted(set(numbers))


def test_a_message_longer_than_an_event_may_be_is_cut_to_so_many_bytes() -> None:
    world = running()
    world.driver_fails(message="größer " * 300)
    world.run(until=lambda it: it.status.failure)
    (told,) = [it for it in world.carried if isinstance(it, Event) and it.reason == EventReason.ATTEMPT_FAILED]
    assert 1020 < len(told.message.encode()) <= 1024
    assert told.message.endswith("…")
