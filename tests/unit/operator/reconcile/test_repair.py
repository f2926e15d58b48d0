"""spec.repair: a complete sampling runs again, with a driver that checks all stored files."""

from __future__ import annotations

from ddpm_operator.api import ConditionType, EventReason, Phase
from ddpm_operator.reconcile.actions import SubmitJob
from tests.fakes.world import World


def complete(**spec: object) -> World:
    world = World.of(**spec)
    world.run(until=lambda it: it.settled)
    return world


def repairs(world: World) -> list[bool]:
    """Returns for each driver whether it checks all stored files."""
    return [it.attempt.repairs for it in world.executed if isinstance(it, SubmitJob)]


def test_a_complete_sampling_is_repaired() -> None:
    world = complete()
    world.damaged = 64
    completed = world.status.completion_time
    world.edit(repair=1)
    world.reconcile()
    assert (world.status.phase, world.status.attempt, world.status.completion_time) == (Phase.STARTING, 2, None)
    assert not world.holds(ConditionType.COMPLETE)
    world.run(until=lambda it: it.settled)
    assert (world.damaged, world.stored) == (0, 100)
    assert world.status.completion_time
    assert completed
    assert world.status.completion_time > completed
    assert (world.status.repaired, repairs(world)) == (1, [False, True])
    assert world.reasons.count(EventReason.REPAIRING) == 1


def test_a_repaired_sampling_stays_complete() -> None:
    world = complete()
    world.edit(repair=1)
    world.run(until=lambda it: it.status.repaired == 1 and it.settled)
    for _ in range(5):
        world.wait(60)
        world.reconcile()
    assert world.status.attempt == 2


def test_a_failed_repair_is_retried_as_a_repair() -> None:
    world = complete(backoffLimit=0)
    world.edit(repair=1)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.head_dies()
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.FAILED)
    world.reconcile()
    assert world.holds(ConditionType.FAILED)
    world.edit(backoffLimit=1)
    world.run(until=lambda it: it.settled and it.holds(ConditionType.COMPLETE))
    assert (world.status.repaired, repairs(world)) == (1, [False, True, True])


def test_a_repair_that_is_asked_for_during_a_run_follows_it() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(repair=1)
    world.run(until=lambda it: it.status.repaired == 1 and it.settled)
    assert repairs(world) == [False, True]


def test_a_repair_starts_the_count_of_failed_attempts_anew() -> None:
    world = World.of(backoffLimit=1)
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.head_dies()
    world.run(until=lambda it: it.settled)
    assert world.status.failed_attempts == 1
    world.edit(repair=1)
    world.reconcile()
    assert world.status.failed_attempts == 0
