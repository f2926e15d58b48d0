"""status.progress: how far it lags behind, and how often it is written."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest

from ddpm_operator.api import Phase, Status
from tests.fakes.world import World

LARGE = {"samples": 2000, "resources": {"maxWorkers": 2}}
LATE = timedelta(seconds=5)


def without_figures(status: Status) -> tuple[object, list[str]]:
    rest = status.model_copy(update={"progress": None, "conditions": ()})
    return rest, [condition.reason for condition in status.conditions]


@pytest.mark.parametrize("seconds", [0.5, 1.3, 2])
def test_status_lags_at_most_five_seconds(seconds: float) -> None:
    world = World.of(samples=6400)
    world.run(until=lambda it: it.sampling.status is not None and it.status.phase == Phase.RUNNING)
    truth = [(world.now, world.stored)]
    while not world.finished:
        world.driver()
        world.wait(seconds)
        if world.requeue_at and world.requeue_at <= world.now:
            world.reconcile()
        truth.append((world.now, world.stored))
        known = max(stored for at, stored in truth if at <= world.now - LATE or at == truth[0][0])
        assert world.status.progress
        assert known <= world.status.progress.done <= world.stored
    assert len(truth) > 100


def test_progress_writes_are_three_seconds_apart() -> None:
    world = World.of(**LARGE)
    while not world.settled:
        _ = world.collect_garbage() or world.kubelet() or world.kuberay() or world.driver()
        world.wait(0.5)
        world.reconcile()
    running = [status for status in world.history if status.phase == Phase.RUNNING]
    only_figures = [
        later.progress.last_update_time - sooner.progress.last_update_time
        for sooner, later in pairwise(running)
        if without_figures(sooner) == without_figures(later)
        and sooner.progress
        and later.progress
        and sooner.progress.last_update_time
        and later.progress.last_update_time
    ]
    assert len(only_figures) > 3
    assert min(only_figures) >= timedelta(seconds=3)
    assert any(it.progress and it.progress.eta and it.progress.samples_per_second == "12.3" for it in running)


def test_unchanged_progress_is_not_written() -> None:
    world = World.of(samples=640)
    world.run(until=lambda it: it.stored >= 128)
    for _ in range(2):
        world.wait(3)
        world.reconcile()
    written = len(world.history)
    for _ in range(10):
        world.wait(3)
        world.reconcile()
    assert len(world.history) == written
