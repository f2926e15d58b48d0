"""More samples, at any time: only what is missing is drawn."""

from __future__ import annotations

from ddpm_operator.actions import CreateCluster, SubmitJob
from ddpm_operator.api import ConditionType, EventReason, Phase
from tests.unit.operator.lifecycle.world import World, sha


def jobs(world: World) -> list[tuple[str, int]]:
    return [(it.id[-4:], it.attempt.spec.samples) for it in world.carried if isinstance(it, SubmitJob)]


def test_a_running_sampling_goes_on_in_the_same_cluster_once_the_present_job_has_ended() -> None:
    world = World.of()
    world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    world.edit(samples=300)
    world.run(until=lambda it: it.at_rest)
    assert world.stored == 300
    assert sum(isinstance(it, CreateCluster) for it in world.carried) == 1
    name = next(it.attempt.name for it in world.carried if isinstance(it, CreateCluster))
    asked = [(it.id, it.attempt.spec.samples) for it in world.carried if isinstance(it, SubmitJob)]
    assert asked == [(name, 100), (f"{name}-r2", 300)]
    assert world.reasons == [
        EventReason.ACCEPTED,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.GROWN,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_the_total_is_what_is_asked_for_now_not_what_the_driver_still_works_at() -> None:
    world = World.of(samples=640)
    world.run(until=lambda it: it.stored >= 128)
    world.edit(samples=1280)
    world.look()
    progress = world.status.progress
    assert progress
    assert progress.total == 1280
    assert progress.percent == 100 * progress.done // 1280


def test_a_finished_sampling_begins_a_new_attempt_and_takes_its_end_back() -> None:
    world = World.of()
    world.run(until=lambda it: it.at_rest)
    world.edit(samples=200)
    world.look()
    assert world.status.phase == Phase.STARTING
    assert world.status.attempt == 2
    assert world.status.completion_time is None
    assert not world.holds(ConditionType.COMPLETE)
    world.run(until=lambda it: it.at_rest)
    assert world.status.output
    assert world.status.output.manifest_sha256 == sha(200)
    assert world.reasons[5:] == [
        EventReason.GROWN,
        EventReason.CLUSTER_CREATED,
        EventReason.STARTED,
        EventReason.COMPLETED,
        EventReason.CLUSTER_DELETED,
    ]


def test_a_later_attempt_keeps_what_the_first_has_chosen_and_its_image() -> None:
    world = World.of()
    world.run(until=lambda it: it.at_rest)
    world.edit(samples=200)
    world.look()
    made = [it.attempt for it in world.carried if isinstance(it, CreateCluster)]
    assert made[1].plan.batch_size == 64
    assert made[1].plan.device == made[0].plan.device
    assert made[0].image == "registry.example.com/worker:1"
    assert made[1].image == world.status.image
    assert "@sha256:" in made[1].image


def test_a_failed_sampling_that_grows_has_all_its_attempts_again() -> None:
    world = World.of(backoffLimit=1)
    for _ in range(2):
        world.run(until=lambda it: it.driver_fails())
        world.run(until=lambda it: it.ended or not it.drivers)
    assert world.holds(ConditionType.FAILED)
    world.edit(samples=200)
    world.look()
    assert world.status.failed_attempts == 0
    assert not world.holds(ConditionType.FAILED)
    world.run(until=lambda it: it.at_rest)
    assert world.holds(ConditionType.COMPLETE)


def test_growth_between_the_end_and_its_writing_down_is_not_lost() -> None:
    world = World.of()
    world.run(until=lambda it: it.drivers and next(iter(it.drivers.values())).outcome)
    world.look(between=lambda: world.edit(samples=200))
    assert not world.ended
    world.run(until=lambda it: it.at_rest)
    assert world.stored == 200
