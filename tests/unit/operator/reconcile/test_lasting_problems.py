"""Any single problem that lasts forever, from any moment on: the sampling finishes, or reports that it is queued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import ConditionType, FailureReason, Phase
from ddpm_operator.reconcile.actions import (
    Action,
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    EnsureClaim,
    SubmitJob,
)
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind, Container, Waiting
from tests.fakes.world import World

Move = Callable[[World], object]

LONG = timedelta(hours=1)
COURSE: list[Move] = [World.collect_garbage, World.kubelet, World.kuberay, World.driver]
FULL = "exceeded quota: team, requested: pods=1, used: pods=9, limited: pods=9"
# The actions of an attempt that the API server or the head can reject.
ACTIONS = (EnsureClaim, CreateCluster, CreateNetworkPolicy, CreateSecret, SubmitJob)


@dataclass(frozen=True)
class LastingProblem:
    """A problem that lasts.

    Attributes:
        without: steps of the world that no longer happen.
        again: what happens again before every step.
        spec: fields that bound its duration.
    """

    without: tuple[Move, ...] = ()
    again: Move = lambda _: None
    spec: dict[str, object] = field(default_factory=dict)


def refusing(kind: ActionErrorKind, rejected: type[Action]) -> Move:
    error = ActionError(kind, "create it", FULL if kind is ActionErrorKind.QUOTA else "no")

    def again(world: World) -> None:
        world.reject = lambda it: error if isinstance(it, rejected) else None

    return again


def each_pod(**fields: object) -> Move:
    """Puts every pending pod into a state."""

    def again(world: World) -> None:
        for pod in [it for it in world.pods.values() if it.phase == "Pending" and not it.deleted]:
            world.pods[pod.uid] = replace(pod, **fields)  # type: ignore[arg-type]

    return again


def each_cluster(**fields: object) -> Move:
    def again(world: World) -> None:
        world.clusters = {it.name: replace(it, **fields) for it in world.clusters.values()}  # type: ignore[arg-type]

    return again


def unresponsive(ready: bool) -> Move:
    """Makes every head unresponsive, whatever its pod reports, as on a node that is gone."""

    def again(world: World) -> None:
        for pod in [it for it in world.pods.values() if it.phase == "Running" and not it.deleted]:
            world.unresponsive.add(pod.uid)
            world.pods[pod.uid] = replace(pod, ready=ready)

    return again


PROBLEMS = {
    **{
        f"{kind} of {action.__name__}": LastingProblem(again=refusing(kind, action))
        for kind in ActionErrorKind
        for action in ACTIONS
        if kind is not ActionErrorKind.PREVIEW
    },
    "KubeRay creates no pods": LastingProblem((World.kuberay,)),
    "the kubelet starts no pods": LastingProblem((World.kubelet,)),
    "no image": LastingProblem((World.kubelet,), each_pod(containers=(Container("ray", Waiting("ErrImagePull")),))),
    "no node": LastingProblem((World.kubelet,), each_pod(unschedulable="0/1 nodes are available")),
    "no room for pods": LastingProblem((World.kuberay,), each_cluster(replica_failure=FULL)),
    "Kueue admits no cluster": LastingProblem(again=World.kueue_suspends),
    "a driver that hangs": LastingProblem((World.driver,), spec={"activeDeadlineSeconds": 600}),
    "drivers that fail": LastingProblem(again=World.driver_fails),
    "heads that die": LastingProblem(again=World.head_dies),
    "heads that are deleted": LastingProblem(again=World.delete_pod),
    "clusters that are deleted": LastingProblem(again=World.delete_cluster),
    "a head that is ready and silent": LastingProblem((World.kubelet, World.driver), unresponsive(ready=True)),
    "a head on a node that is gone": LastingProblem((World.kubelet, World.driver), unresponsive(ready=False)),
}


def run_with(world: World, problem: LastingProblem, until: Callable[[], bool]) -> None:
    """Lets the world continue as far as the problem permits."""
    moves = [move for move in COURSE if move not in problem.without]
    while not until():
        problem.again(world)
        moved = any(move(world) for move in moves)
        world.wait(0.5)
        if world.requeue_at and world.requeue_at <= world.now:
            world.reconcile()
        elif not moved:
            idle = world.settled or any(it.suspended for it in world.clusters.values())
            assert world.requeue_at or idle, f"no reconcile is scheduled for {world.sampling.status}"
            world.now = max(world.requeue_at or world.now + LONG, world.now)
            world.reconcile()


@pytest.mark.parametrize("problem", PROBLEMS)
@settings(deadline=None, max_examples=3)
@given(after=st.integers(0, 30), workers=st.integers(0, 2), queue=st.booleans())
def test_sampling_finishes_or_is_queued(problem: str, after: int, workers: int, queue: bool) -> None:
    world = World.of(
        samples=300,
        resources={"maxWorkers": workers},
        startupDeadlineSeconds=60,
        backoffLimit=1,
        **({"queueName": "gpus"} if queue else {}),
        **PROBLEMS[problem].spec,
    )
    for _ in range(after):
        world.step()
    start = world.now
    run_with(world, PROBLEMS[problem], lambda: world.finished or world.now - start > LONG)
    assert world.finished or world.status.phase is Phase.QUEUED, world.status
    if not world.finished:
        reason = world.condition(ConditionType.CLUSTER_READY).reason
        assert reason in ("Queued", FailureReason.QUOTA_EXCEEDED)
