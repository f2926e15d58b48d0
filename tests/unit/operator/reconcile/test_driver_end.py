"""The driver ends: its outcome, or Ray's job status and log, become the failure of the attempt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddpm_operator.api import ConditionType, FailureReason
from ddpm_operator.planning.limits import Limits
from ddpm_operator.reconcile.actions import (
    SubmitJob,
)
from ddpm_operator.reconcile.observed import (
    RayJob,
    Terminated,
)
from tests.fakes.world import World


def running(**spec: object) -> World:
    world = World.of(**spec)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    return world


def fail_once(world: World) -> None:
    """Lets the driver fail once."""
    world.run(until=lambda it: it.driver_fails())
    world.run(until=lambda it: it.status.failure)


def test_unknown_reason_is_driver_failed() -> None:
    world = running(backoffLimit=0)
    world.driver_fails("Gremlins", "they are in the machine")
    world.run(until=lambda it: it.finished)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DRIVER_FAILED


def test_oom_killed_worker_is_out_of_memory() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1})
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    (container,) = worker.containers
    world.change(
        worker.uid, containers=(replace(container, restarts=1, last_termination=Terminated("OOMKilled", 137)),)
    )
    fail_once(world)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.OUT_OF_MEMORY
    assert worker.name in world.status.failure.message


def test_driver_without_workers_names_the_pods_problem() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1})
    world.run(until=lambda it: it.drivers and any(driver.jobs for driver in it.drivers.values()))
    worker = next(pod for pod in world.pods.values() if pod.role == "worker")
    world.change(worker.uid, unschedulable="0/1 nodes are available: 1 Insufficient cpu.")
    world.driver()
    world.driver_fails("Unschedulable", "no worker came within 600 s")
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.message == (
        f"No worker came within 600 s. The worker pod {worker.name} fits no node: "
        "0/1 nodes are available: 1 Insufficient cpu."
    )


def test_driver_that_lost_workers_names_the_pods_problem() -> None:
    world = World.of(samples=2000, resources={"maxWorkers": 1}, backoffLimit=0)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    (cluster,) = world.clusters.values()
    full = 'pods "digits-worker" is forbidden: exceeded quota: few, requested: count/pods=1'
    world.clusters[cluster.name] = replace(cluster, replica_failure=full)
    world.driver_fails("WorkerLost", "no node has had room for a worker for 600 s; each needs 1 CPU")
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.WORKER_LOST
    assert world.status.failure.message == (
        f"No node has had room for a worker for 600 s; each needs 1 CPU. KubeRay cannot create the pods: {full}."
    )


def set_job(world: World, **fields: object) -> None:
    """Sets what Ray reports about the only job, with no outcome of the driver."""
    (driver,) = world.drivers.values()
    driver.jobs = [replace(driver.jobs[0], **fields)]  # type: ignore[arg-type]
    driver.outcome = None


def test_unread_success_is_submitted_again() -> None:
    world = running()
    world.stored = world.manifest = 100
    set_job(world, state="SUCCEEDED")
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    ids = [it.id for it in world.executed if isinstance(it, SubmitJob)]
    assert ids == [ids[0], f"{ids[0]}-r2"]


def test_three_unread_successes_fail() -> None:
    world = running(backoffLimit=0)
    (driver,) = world.drivers.values()
    name = driver.jobs[0].id
    driver.jobs = [RayJob(job_id, "SUCCEEDED", 100) for job_id in (name, f"{name}-r2", f"{name}-r3")]
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.DRIVER_FAILED
    assert world.status.failure.message == ("The driver succeeded 3 times, but its result could not be read.")


def test_unread_failure_is_taken_from_the_log() -> None:
    world = running()
    log = (
        'loading\n{"event": "error", "reason": "StorageFailed", "exitCode": 4, "message": "the disk is full", '
        '"hint": "make room"}\nsee https://user:secret@example.com\n'
    )
    set_job(world, state="FAILED", message="exit code 4", log=log)
    world.reconcile()
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
def test_missing_credentials_names_the_secret(reason: str, message: str) -> None:
    for cloud_identity in (False, True):
        world = running()
        world.limits = Limits(cloud_identity=cloud_identity)
        world.driver_fails(reason, message, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        world.reconcile()
        assert world.status.failure
        hint = world.status.failure.hint
        assert hint.startswith("Name a Secret with AWS_ACCESS_KEY_ID")
        assert "in spec.credentialsSecretRef" in hint
        assert ("allowed.cloudIdentity" in hint) is not cloud_identity


@pytest.mark.parametrize(
    ("driver_hint", "hint"),
    [
        ("use the same flags as then, or give --overwrite", FailureReason.STORAGE_FAILED.hint),
        ("free some space there, then run the same command again", FailureReason.STORAGE_FAILED.hint),
        ("", FailureReason.STORAGE_FAILED.hint),
        ("create the bucket, or correct the URI", "Create the bucket, or correct the URI."),
    ],
)
def test_command_line_hints_are_replaced(driver_hint: str, hint: str) -> None:
    world = running()
    world.driver_fails("StorageFailed", "4 of 8 are kept in /output; run the same command again to resume", driver_hint)
    world.reconcile()
    assert world.status.failure
    assert (world.status.failure.message, world.status.failure.hint) == ("4 of 8 are kept in /output.", hint)


def test_driver_without_error_event_keeps_its_log_tail() -> None:
    world = running()
    set_job(world, state="FAILED", message="Job entrypoint exited with 139", log="x\n" * 5000 + "Segmentation fault")
    world.reconcile()
    failure = world.status.failure
    assert failure
    assert failure.reason == FailureReason.DRIVER_FAILED
    assert failure.message == "The driver ended without reporting an error: Job entrypoint exited with 139."
    assert failure.log_tail.endswith("x\nSegmentation fault")
    assert len(failure.log_tail.encode()) <= 2048


def test_driver_killed_by_ray_is_out_of_memory() -> None:
    world = running(backoffLimit=0)
    driver_hint = (
        "Unexpected error occurred: 2 worker(s) were killed due to the node running low on memory. Memory on the\n"
    )
    set_job(world, state="FAILED", message=f"{driver_hint}node was 1.50GB used / 1.50GB limit\nOOM kill reason: usage")
    world.reconcile()
    failure = world.status.failure
    assert failure
    assert failure.reason == FailureReason.OUT_OF_MEMORY
    assert "running low on memory" in failure.message
    assert failure.message.endswith("1.50GB used / 1.50GB limit.")


def test_stopped_job_is_retried() -> None:
    world = running()
    set_job(world, state="STOPPED")
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2
