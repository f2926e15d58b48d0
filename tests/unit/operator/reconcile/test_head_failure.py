"""The head of an attempt is lost: the attempt fails, the status says why, and the next attempt starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ddpm_operator.api import ConditionType, FailureReason, Phase
from ddpm_operator.reconcile.observed import (
    Container,
    Terminated,
)
from tests.fakes.world import World

Failure = Callable[[World], object]


def running(**spec: object) -> World:
    world = World.of(**spec)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    return world


HEADS: dict[str, tuple[Failure, str, str]] = {
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
    "deleted": (lambda it: it.delete_pod(), "HeadLost", "is lost: it was deleted."),
    "gone": (lambda it: it.pods.clear(), "HeadLost", "-1 is gone."),
    "deleted with its cluster": (
        lambda it: it.delete_cluster(),
        "HeadLost",
        "was deleted, and not by the operator.",
    ),
}


def failed_and_deleted(**fields: object) -> Failure:
    """Lets the head fail, and KubeRay delete it, before the operator reconciles."""

    def failure(world: World) -> None:
        (head,) = world.pods.values()
        world.change(head.uid, phase="Failed", ready=False, **fields)
        assert world.kuberay()

    return failure


def terminated(reason: str, code: int, message: str = "") -> tuple[Container, ...]:
    return (Container("ray-head", Terminated(reason, code, message)),)


NO_RAY = "/bin/bash: line 1: ulimit: no\n/bin/bash: line 1: ray: command not found\n"


DELETED_AT_ONCE: dict[str, tuple[Failure, str, str]] = {
    "for its memory": (
        failed_and_deleted(containers=terminated("OOMKilled", 137)),
        "OutOfMemory",
        "needed more memory than its limit of 4Gi.",
    ),
    "by the kubelet": (
        failed_and_deleted(reason="Evicted", message="The node was low on resource: ephemeral-storage."),
        "HeadLost",
        "is lost: Evicted: The node was low on resource: ephemeral-storage.",
    ),
    "for another pod": (
        failed_and_deleted(
            containers=terminated("OOMKilled", 143), disruption="PreemptionByScheduler: it was preempted"
        ),
        "HeadLost",
        "is lost: PreemptionByScheduler: it was preempted.",
    ),
    "as it could not be started": (
        failed_and_deleted(containers=terminated("StartError", 128, 'exec: "/bin/bash": no such file or directory')),
        "HeadLost",
        'is lost: StartError, exit code 128: exec: "/bin/bash": no such file or directory.',
    ),
    "by itself": (
        failed_and_deleted(containers=terminated("Error", 127, NO_RAY)),
        "HeadLost",
        "is lost: Error, exit code 127: /bin/bash: line 1: ray: command not found.",
    ),
}


@pytest.mark.parametrize("what", DELETED_AT_ONCE)
def test_cause_is_known_for_a_head_deleted_at_once(what: str) -> None:
    failure, reason, message = DELETED_AT_ONCE[what]
    world = running()
    failure(world)
    assert not world.pods
    world.reconcile()
    assert world.status.failure
    assert (world.status.failure.reason, world.status.failure.message.endswith(message)) == (reason, True), (
        world.status.failure.message
    )


def test_end_of_previous_head_is_not_the_current_heads() -> None:
    world = running()
    world.head_dies("OOMKilled", 137)
    world.kuberay()
    world.run(until=lambda it: it.status.attempt == 2 and it.holds(ConditionType.RUNNING))
    world.pods.clear()
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.message.endswith("-2 is gone.")


@pytest.mark.parametrize("what", HEADS)
def test_lost_head_ends_the_attempt_and_is_retried(what: str) -> None:
    failure, reason, message = HEADS[what]
    world = running()
    assert failure(world) is not False
    world.requeue_at = world.now
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == reason
    assert world.status.failure.message.endswith(message)
    assert world.status.phase == Phase.PENDING
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert world.status.attempt == 2


def test_second_head_pod_ends_the_attempt() -> None:
    world = running()
    (old,) = world.pods.values()
    world.pods = {"other": replace(old, uid="other", name="other-head")}
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert all(it.deleted for it in world.clusters.values())


def test_restarted_head_container_ends_the_attempt() -> None:
    world = running()
    (head,) = world.pods.values()
    (container,) = head.containers
    world.change(head.uid, containers=(replace(container, restarts=1),))
    world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST


def test_head_silent_for_five_minutes_is_lost() -> None:
    world = running()
    world.unreachable_since = world.now
    (head,) = world.pods.values()
    blind = {head.uid: head}
    world.pods = {}
    for _ in range(299):
        world.wait(1)
        world.reconcile(blind)
        assert world.status.failure is None
    world.wait(1)
    world.reconcile(blind)
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert world.status.failure.message == "The head has not answered for 5m00s: connection refused."


def test_head_on_a_lost_node_is_lost() -> None:
    world = running(backoffLimit=0)
    (head,) = world.pods.values()
    world.change(head.uid, ready=False)
    world.reconcile()
    for _ in range(60):
        assert world.status.failure is None
        world.wait(5)
        world.reconcile()
    assert world.status.failure
    assert world.status.failure.reason == FailureReason.HEAD_LOST
    assert world.status.failure.message == "The head has not answered for 5m00s: connection refused."
