"""Any one trouble that lasts for ever, from whatever moment on: the sampling ends, or says that it is queued."""

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
# What of an attempt's own making the API server, or the head, can refuse.
MADE = (EnsureClaim, CreateCluster, CreateNetworkPolicy, CreateSecret, SubmitJob)


@dataclass(frozen=True)
class Lasting:
    """A trouble.

    Attributes:
        without: what does not happen any more.
        again: what happens again and again.
        spec: without which it would be none.
    """

    without: tuple[Move, ...] = ()
    again: Move = lambda _: None
    spec: dict[str, object] = field(default_factory=dict)


def refusing(kind: ActionErrorKind, refused: type[Action]) -> Move:
    fault = ActionError(kind, "create it", FULL if kind is ActionErrorKind.QUOTA else "no")

    def again(world: World) -> None:
        world.reject = lambda it: fault if isinstance(it, refused) else None

    return again


def each_pod(**fields: object) -> Move:
    """Every pod that has not begun is in this state."""

    def again(world: World) -> None:
        for pod in [it for it in world.pods.values() if it.phase == "Pending" and not it.deleted]:
            world.pods[pod.uid] = replace(pod, **fields)  # type: ignore[arg-type]

    return again


def each_cluster(**fields: object) -> Move:
    def again(world: World) -> None:
        world.clusters = {it.name: replace(it, **fields) for it in world.clusters.values()}  # type: ignore[arg-type]

    return again


def unanswered(ready: bool) -> Move:
    """The heads' node is gone: nobody is heard, whatever their pods say."""

    def again(world: World) -> None:
        for pod in [it for it in world.pods.values() if it.phase == "Running" and not it.deleted]:
            world.unresponsive.add(pod.uid)
            world.pods[pod.uid] = replace(pod, ready=ready)

    return again


TROUBLES = {
    **{
        f"{kind} of {made.__name__}": Lasting(again=refusing(kind, made))
        for kind in ActionErrorKind
        for made in MADE
        if kind is not ActionErrorKind.PREVIEW
    },
    "nobody makes pods": Lasting((World.kuberay,)),
    "nobody starts pods": Lasting((World.kubelet,)),
    "no image": Lasting((World.kubelet,), each_pod(containers=(Container("ray", Waiting("ErrImagePull")),))),
    "no node": Lasting((World.kubelet,), each_pod(unschedulable="0/1 nodes are available")),
    "no room for pods": Lasting((World.kuberay,), each_cluster(replica_failure=FULL)),
    "a queue that lets nobody in": Lasting(again=World.kueue_suspends),
    "a driver that stands still": Lasting((World.driver,), spec={"activeDeadlineSeconds": 600}),
    "drivers that fail": Lasting(again=World.driver_fails),
    "heads that die": Lasting(again=World.head_dies),
    "heads that are deleted": Lasting(again=World.delete_pod),
    "clusters that are deleted": Lasting(again=World.delete_cluster),
    "a head that is ready and silent": Lasting((World.kubelet, World.driver), unanswered(ready=True)),
    "a head on a node that is gone": Lasting((World.kubelet, World.driver), unanswered(ready=False)),
}


def goes_on(world: World, trouble: Lasting, until: Callable[[], bool]) -> None:
    """The world takes its course, as far as the trouble lets it."""
    moves = [move for move in COURSE if move not in trouble.without]
    while not until():
        trouble.again(world)
        moved = any(move(world) for move in moves)
        world.wait(0.5)
        if world.requeue_at and world.requeue_at <= world.now:
            world.reconcile()
        elif not moved:
            asleep = world.settled or any(it.suspended for it in world.clusters.values())
            assert world.requeue_at or asleep, f"nobody will ever look again at {world.sampling.status}"
            world.now = max(world.requeue_at or world.now + LONG, world.now)
            world.reconcile()


@pytest.mark.parametrize("trouble", TROUBLES)
@settings(deadline=None, max_examples=8)
@given(after=st.integers(0, 30), workers=st.integers(0, 2), queue=st.booleans())
def test_sampling_finishes_or_is_queued(trouble: str, after: int, workers: int, queue: bool) -> None:
    world = World.of(
        samples=300,
        resources={"maxWorkers": workers},
        startupDeadlineSeconds=60,
        backoffLimit=1,
        **({"queueName": "gpus"} if queue else {}),
        **TROUBLES[trouble].spec,
    )
    for _ in range(after):
        world.step()
    begun = world.now
    goes_on(world, TROUBLES[trouble], lambda: world.finished or world.now - begun > LONG)
    assert world.finished or world.status.phase is Phase.QUEUED, world.status
    if not world.finished:
        said = world.condition(ConditionType.CLUSTER_READY).reason
        assert said in ("Queued", FailureReason.QUOTA_EXCEEDED)
