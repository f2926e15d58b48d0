"""The operator's clock jumps: a restarted operator runs on a node whose clock is ahead or behind."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_operator.api import ConditionType, FailureReason, Phase
from tests.fakes.world import World

YEAR = 365 * 24 * 3600


def set_back(world: World, seconds: float = YEAR) -> None:
    """Sets the clock back, as for an operator on a node whose clock is behind."""
    world.now -= timedelta(seconds=seconds)
    world.requeue_at = world.now


def sampling(**spec: object) -> World:
    world = World.of(samples=640, **spec)
    world.run(until=lambda it: it.stored >= 128)
    return world


def test_progress_continues() -> None:
    world = sampling()
    world.reconcile()
    assert world.status.progress
    before = world.status.progress.done
    set_back(world)
    for _ in range(20):
        world.step()
    assert world.status.progress.done > before


def test_backoff_is_not_prolonged() -> None:
    world = sampling()
    world.driver_fails()
    world.reconcile()
    set_back(world)
    start = world.now
    world.run(until=lambda it: it.status.attempt == 2)
    assert world.now - start < timedelta(seconds=30)


def test_ttl_is_not_prolonged() -> None:
    world = sampling(ttlSecondsAfterFinished=60)
    world.run(until=lambda it: it.finished)
    set_back(world)
    start = world.now
    world.run(until=lambda it: it.is_deleted)
    assert world.now - start < timedelta(seconds=90)


@pytest.mark.parametrize("running", [True, False])
def test_deadline_counts_from_the_new_time(running: bool) -> None:
    world = World.of(samples=10**6, startupDeadlineSeconds=60, activeDeadlineSeconds=60, backoffLimit=0)
    if running:
        world.run(until=lambda it: it.holds(ConditionType.RUNNING))
    else:
        world.reconcile()
    set_back(world)
    start = world.now
    while not world.status.failure:
        world.driver()
        world.reconcile()
        assert world.requeue_at
        world.now = max(world.requeue_at, world.now + timedelta(seconds=1))
    assert world.now - start < timedelta(seconds=65)
    assert world.status.failure.reason in (FailureReason.DEADLINE_EXCEEDED, FailureReason.KUBERAY_MISSING)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.5, 5, 60, 3600, YEAR])), max_size=8), st.booleans())
def test_backward_jumps_cost_no_attempt(jumps: list[tuple[int, float]], crashes: bool) -> None:
    world = World.of(samples=640, activeDeadlineSeconds=3600)
    for steps, seconds in jumps:
        for _ in range(steps):
            world.step()
        if crashes:
            world.crash_at = len(world.executed)
        set_back(world, seconds)
    world.run(until=lambda it: it.settled)
    assert world.holds(ConditionType.COMPLETE)
    assert (world.status.phase, world.status.attempt, world.status.failed_attempts) == (Phase.SUCCEEDED, 1, 0)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(-YEAR, YEAR)), max_size=8))
def test_any_jumps_end_in_success_or_a_deadline(
    jumps: list[tuple[int, float]],
) -> None:
    world = World.of(samples=640, activeDeadlineSeconds=3600)
    for steps, seconds in jumps:
        for _ in range(steps):
            world.step()
        world.wait(seconds)
        world.requeue_at = world.now
    world.run(until=lambda it: it.settled)
    assert not world.clusters
    assert not world.pods
    if not world.holds(ConditionType.COMPLETE):
        assert world.status.failure
        assert "DeadlineExceeded" in world.status.failure.reason


def test_the_wait_for_hardware_is_not_prolonged() -> None:
    world = World.of(startupDeadlineSeconds=60)
    world.nodes = {"node-a": "AVX512", "node-b": "AVX2"}
    world.node_labels = {"node-a": {"kubernetes.io/arch": "amd64"}, "node-b": {"kubernetes.io/arch": "arm64"}}
    world.run(until=lambda it: it.stored > 0 and it.holds(ConditionType.RUNNING))
    world.head_dies()
    world.run(until=lambda it: it.status.cluster is None)
    world.full_nodes = {"node-a"}
    world.run(until=lambda it: it.status.phase is Phase.QUEUED)
    set_back(world)
    start = world.now
    world.run(until=lambda it: it.status.attempt == 3)
    assert world.now - start < timedelta(seconds=90)
