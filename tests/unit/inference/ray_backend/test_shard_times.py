"""Which shard takes too long: compared with the others, by its steps, or by --shard_timeout."""

from __future__ import annotations

import pytest

from ddpm_inference.job import Shard
from ddpm_inference.ray_backend.shard_times import (
    MAX_SECONDS_WITHOUT_STEP,
    MIN_RESULTS,
    MIN_SLOW_SECONDS,
    SLOW_FACTOR,
    ShardTimes,
)

SHARD, OTHER = Shard(first=0, last=31), Shard(first=32, last=63)


def after_results(seconds: float, times: ShardTimes | None = None) -> ShardTimes:
    """Returns the times of a run in which enough shards took so many seconds."""
    times = times or ShardTimes()
    for _ in range(MIN_RESULTS):
        times.end(times.begin(OTHER, 0.0), seconds)
    return times


@pytest.mark.parametrize(("usual", "limit"), [(1.0, MIN_SLOW_SECONDS), (20.0, SLOW_FACTOR * 20.0)])
def test_a_shard_without_a_step_is_compared_with_the_others(usual: float, limit: float) -> None:
    times = after_results(usual)
    running = times.begin(SHARD, 1000.0)
    assert times.excess(running, 1000.0 + limit, is_first=False) is None
    excess = times.excess(running, 1001.0 + limit, is_first=False)
    assert excess == f"where others take {usual:.1f} s"


def test_a_machine_that_became_slow_for_all_replaces_no_worker() -> None:
    times = after_results(1.0)
    running = times.begin(SHARD, 1000.0)
    for second in range(1000, 2000, 10):
        running.observe(second / 10_000, float(second))
        assert times.excess(running, float(second), is_first=False) is None


def test_a_slow_shard_that_others_overtake_is_too_slow() -> None:
    times = after_results(1.0)
    running = times.begin(SHARD, 1000.0)
    running.observe(0.5, 1061.0)
    assert times.excess(running, 1061.0, is_first=False) is None
    after_results(1.0, times)
    assert times.excess(running, 1061.0, is_first=False)


def test_the_first_shard_of_a_worker_may_compile() -> None:
    times = after_results(1.0, ShardTimes(first_grace=600.0))
    running = times.begin(SHARD, 0.0)
    assert times.excess(running, 600.0, is_first=True) is None
    assert times.excess(running, 600.0, is_first=False)
    assert times.excess(running, 661.0, is_first=True)


def test_without_others_a_shard_needs_steps() -> None:
    times = ShardTimes()
    running = times.begin(SHARD, 0.0)
    running.observe(0.1, 5000.0)
    assert times.excess(running, 5000.0 + MAX_SECONDS_WITHOUT_STEP, is_first=True) is None
    assert times.excess(running, 5001.0 + MAX_SECONDS_WITHOUT_STEP, is_first=True) == "with no step for 1801 s"


def test_a_timeout_decides_alone() -> None:
    times = after_results(0.1, ShardTimes(timeout=100.0, first_grace=600.0))
    running = times.begin(SHARD, 0.0)
    assert times.excess(running, 100.0, is_first=True) is None
    assert times.excess(running, 100.5, is_first=True) == "longer than --shard_timeout 100"
