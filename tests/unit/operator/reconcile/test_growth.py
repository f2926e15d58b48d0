"""spec.samples is raised, at any time: only the missing samples are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddpm_operator.api import ConditionType, EventReason, Phase, Plan
from ddpm_operator.reconcile.actions import CreateCluster, SubmitJob
from tests.fakes.world import World, sha


def jobs(world: World) -> list[tuple[str, int]]:
    return [(it.id[-4:], it.attempt.spec.samples) for it in world.executed if isinstance(it, SubmitJob)]


def test_growth_resubmits_in_the_same_cluster() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(samples=300)
    world.run(until=lambda it: it.settled)
    assert world.stored == 300
    assert sum(isinstance(it, CreateCluster) for it in world.executed) == 1
    name = next(it.attempt.name for it in world.executed if isinstance(it, CreateCluster))
    submitted = [(it.id, it.attempt.spec.samples) for it in world.executed if isinstance(it, SubmitJob)]
    assert submitted == [(name, 100), (f"{name}-r2", 300)]
    assert world.reasons == [
        EventReason.ACCEPTED,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.GROWN,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_growth_updates_the_total_at_once() -> None:
    world = World.of(samples=640)
    world.run(until=lambda it: it.stored >= 128)
    world.edit(samples=1280)
    world.reconcile()
    progress = world.status.progress
    assert progress
    assert progress.total == 1280
    assert progress.percent == 100 * progress.done // 1280


def test_growth_reopens_a_finished_sampling() -> None:
    world = World.of()
    world.run(until=lambda it: it.settled)
    world.edit(samples=200)
    world.reconcile()
    assert world.status.phase == Phase.STARTING
    assert world.status.attempt == 2
    assert world.status.completion_time is None
    assert not world.holds(ConditionType.COMPLETE)
    world.run(until=lambda it: it.settled)
    assert world.status.output
    assert world.status.output.manifest_sha256 == sha(200)
    assert world.reasons[5:] == [
        EventReason.GROWN,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_later_attempt_keeps_plan_and_image() -> None:
    world = World.of()
    world.run(until=lambda it: it.settled)
    world.edit(samples=200)
    world.reconcile()
    made = [it.attempt for it in world.executed if isinstance(it, CreateCluster)]
    assert made[1].plan.batch_size == 64
    assert made[1].plan.device == made[0].plan.device
    assert made[0].image == "registry.example.com/worker:1"
    assert made[1].image == world.status.image
    assert "@sha256:" in made[1].image


def test_growth_resets_failed_attempts() -> None:
    world = World.of(backoffLimit=1)
    for _ in range(2):
        world.run(until=lambda it: it.driver_fails())
        world.run(until=lambda it: it.finished or not it.drivers)
    assert world.holds(ConditionType.FAILED)
    world.edit(samples=200)
    world.reconcile()
    assert world.status.failed_attempts == 0
    assert not world.holds(ConditionType.FAILED)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)


def test_growth_at_the_very_end_is_not_lost() -> None:
    world = World.of()
    world.run(until=lambda it: it.drivers and next(iter(it.drivers.values())).outcome)
    world.reconcile(between=lambda: world.edit(samples=200))
    assert not world.finished
    world.run(until=lambda it: it.settled)
    assert world.stored == 200


WORKERS = {"samples": 16, "resources": {"maxWorkers": 2}}
GPUS = {"samples": 16, "resources": {"gpus": 4}}


def created_plans(world: World) -> list[Plan]:
    return [it.attempt.plan for it in world.executed if isinstance(it, CreateCluster)]


@pytest.mark.parametrize(
    ("spec", "before", "after"), [(WORKERS, (0, 0), (2, 0)), (GPUS, (1, 1), (4, 4))], ids=["workers", "GPUs"]
)
@pytest.mark.parametrize(
    "when",
    [
        lambda it: it.clusters,
        lambda it: it.drivers and next(iter(it.drivers.values())).jobs,
        lambda it: it.holds(ConditionType.RUNNING),
        lambda it: it.drivers and next(iter(it.drivers.values())).outcome,
    ],
    ids=["before its job", "before it runs", "running", "about done"],
)
def test_large_growth_gets_a_larger_cluster(
    spec: dict[str, Any],
    before: tuple[int, int],
    after: tuple[int, int],
    when: Callable[[World], object],
) -> None:
    world = World.of(**spec)
    world.run(until=when)
    world.edit(samples=20_000)
    world.run(until=lambda it: it.settled)
    assert [(it.workers, it.gpus) for it in created_plans(world)] == [before, after]
    status = world.status
    assert (status.phase, status.attempt, status.failed_attempts) == (Phase.SUCCEEDED, 2, 0)
    assert status.plan
    assert (status.plan.workers, status.plan.gpus, status.plan.batch_size) == (*after, 64)
    assert status.plan.why[0].startswith("20,000 samples in batches of")
    assert world.stored == 20_000
    assert EventReason.ATTEMPT_FAILED not in world.reasons


def test_small_cluster_finishes_its_samples_first() -> None:
    world = World.of(**WORKERS)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(samples=20_000)
    world.reconcile()
    assert world.condition(ConditionType.ACCEPTED).message == (
        "20,000 samples of builtin://mnist on cpu, by 2 workers. "
        "They begin when attempt 1 has finished its own samples."
    )
    world.run(until=lambda it: not it.clusters)
    assert world.stored == 16
    assert world.condition(ConditionType.RUNNING).reason == "Grown"


def test_small_growth_stays_in_the_same_cluster() -> None:
    world = World.of(**WORKERS | {"sampler": {"steps": 50}})
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(samples=300)
    world.reconcile()
    assert world.status.plan
    assert world.status.plan.shards == 5
    assert world.status.plan.why[0].startswith("300 samples in batches of 64")
    world.run(until=lambda it: it.settled)
    assert len(created_plans(world)) == 1
    assert world.condition(ConditionType.ACCEPTED).message.startswith("300 samples")
    assert world.status.plan.shards == 5


def test_cluster_of_maximum_size_is_kept() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(samples=20_000)
    world.run(until=lambda it: it.settled)
    assert len(created_plans(world)) == 1
    assert world.status.plan
    assert world.status.plan.why[:2] == (
        "20,000 samples in batches of 64 (as in the first attempt) make 313 shards.",
        "maxWorkers is 0, so the head draws all samples.",
    )


def test_raised_max_workers_waits_for_the_next_attempt() -> None:
    world = World.of(**{"samples": 20_000, "resources": {"maxWorkers": 1}})
    world.run(until=lambda it: it.clusters)
    world.edit(resources={"maxWorkers": 4})
    world.run(until=lambda it: it.settled)
    assert [it.workers for it in created_plans(world)] == [1]
