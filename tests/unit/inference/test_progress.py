"""Rate and remaining time, with a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ddpm_inference.job import Shard, shards_of
from ddpm_inference.progress import MIN_STALL_SECONDS, WINDOW_SECONDS, Progress, makespan


def simulate(
    shards: list[Shard], workers: int, seconds_a_shard: float, progress: Progress, tick: float = 0.5
) -> Iterator[float]:
    """Plays a run whose shards all take equally long, as the actor pool reports it; yields the time."""
    todo, running, now = list(shards), dict[Shard, float](), 100.0
    while True:
        while todo and len(running) < workers:
            running[todo.pop(0)] = now
        fractions = {shard: (now - began) / seconds_a_shard for shard, began in running.items()}
        progress.observe(now, fractions, workers, len(running))
        if not running:
            return
        if now > 100.0:
            yield now
        now += tick
        for shard, began in list(running.items()):
            if now >= began + seconds_a_shard:
                del running[shard]
                progress.shard_stored(shard)


def times_left(n: int, batch: int, workers: int, done_before: int) -> Iterator[tuple[float, float | None]]:
    """Yields (true remaining time, ETA) in seconds, every half second of a run."""
    shards = [shard for shard in shards_of(n, batch) if shard.first >= done_before]
    progress = Progress()
    progress.begin(n, done_before, len(shards))
    etas = [(now, progress.eta_seconds) for now in simulate(shards, workers, 10.0, progress)]
    end = etas[-1][0] + 0.5
    return ((end - now, eta) for now, eta in etas)


@pytest.mark.parametrize(
    ("n", "batch", "workers", "done_before"),
    [
        pytest.param(320, 32, 2, 0, id="even"),
        pytest.param(100, 32, 2, 0, id="the last shard is short but costs a whole batch"),
        pytest.param(96, 32, 2, 0, id="the last shard leaves a worker idle"),
        pytest.param(6400, 32, 3, 0, id="long"),
        pytest.param(320, 32, 2, 160, id="resumed"),
        pytest.param(33, 32, 4, 32, id="one left, more workers than shards"),
    ],
)
def test_the_eta_is_right_from_the_first_second(n: int, batch: int, workers: int, done_before: int) -> None:
    for truth, eta in times_left(n, batch, workers, done_before):
        assert eta == pytest.approx(truth, rel=0.02, abs=1.0)


def test_the_rate_ignores_samples_stored_before() -> None:
    progress = Progress()
    shards = [shard for shard in shards_of(10_000, 100) if shard.first >= 9_000]
    progress.begin(10_000, 9_000, len(shards))
    for _ in simulate(shards, 2, 10.0, progress):
        rate = progress.samples_per_second
        assert rate == pytest.approx(20.0, rel=0.05)
    assert progress.done == 10_000


def test_time_before_the_first_worker_does_not_count() -> None:
    progress = Progress()
    progress.begin(200, 0, 2)
    for second in range(100):
        progress.observe(float(second), {}, 0, 0)
    first, _ = shards_of(200, 100)
    progress.observe(100.0, {first: 0.0}, 1, 1)
    progress.observe(101.0, {first: 0.1}, 1, 1)
    assert progress.samples_per_second == pytest.approx(10.0)
    assert progress.eta_seconds == pytest.approx(19.0)


def test_the_rate_covers_the_last_window_only() -> None:
    progress = Progress()
    shards = list(shards_of(100_000, 100))
    progress.begin(100_000, 0, len(shards))
    for index, shard in enumerate(shards[:600]):
        seconds = index * 0.1 if index < 300 else 30.0 + (index - 300)
        progress.shard_stored(shard)
        progress.observe(seconds, {}, 1, 1)
        if index > 300 + WINDOW_SECONDS + 1:
            assert progress.samples_per_second == pytest.approx(100.0, rel=0.02)


def test_rate_and_eta_are_unknown_before_any_progress() -> None:
    progress = Progress()
    progress.begin(100, 0, 4)
    first = Shard(first=0, last=31)
    progress.observe(0.0, {first: 0.0}, 1, 1)
    progress.observe(5.0, {first: 0.0}, 1, 1)
    document = progress.snapshot()
    assert document["samplesPerSecond"] is None
    assert document["etaSeconds"] is None


def test_the_snapshot_has_the_fields_of_the_contract() -> None:
    progress = Progress(phase="sampling", message="a message")
    progress.begin(100, 25, 3)
    assert progress.snapshot() == {
        "version": 1,
        "phase": "sampling",
        "done": 25,
        "total": 100,
        "percent": 25.0,
        "samplesPerSecond": None,
        "etaSeconds": None,
        "message": "a message",
    }


def test_failed_shards_do_not_count_in_the_eta() -> None:
    progress = Progress()
    first, second = shards_of(200, 100)
    progress.begin(200, 0, 2)
    progress.shard_stored(first)
    progress.shard_failed(second)
    assert progress.eta_seconds == 0.0


def brute_force(running: list[float], pending: int, workers: int) -> float:
    free = running + [0.0] * (workers - len(running))
    for _ in range(pending):
        free[free.index(min(free))] += 1.0
    return max(free)


@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 60), st.integers(1, 6))
def test_the_makespan_is_that_of_a_simulation(running: list[float], pending: int, workers: int) -> None:
    workers = max(workers, len(running))
    exact = brute_force(running, pending, workers)
    assert makespan(running, pending, workers) == pytest.approx(exact, abs=1.0 if pending > 4 * workers else 1e-9)


@given(st.lists(st.floats(0, 1), max_size=4), st.integers(1, 4))
def test_more_work_never_takes_less_time(running: list[float], workers: int) -> None:
    times = [makespan(running, pending, max(workers, len(running))) for pending in range(100)]
    assert all(a <= b + 1e-9 for a, b in pairwise(times))


def test_without_a_total_there_is_no_eta() -> None:
    assert Progress().snapshot()["etaSeconds"] is None


def test_if_nothing_is_left_the_eta_is_zero() -> None:
    progress = Progress()
    progress.begin(100, 100, 0)
    assert progress.snapshot()["etaSeconds"] == 0.0


def test_there_is_no_eta_while_all_workers_are_lost() -> None:
    progress = Progress()
    shards = [Shard(first=32 * k, last=32 * k + 31) for k in range(4)]
    progress.begin(128, 0, 4)
    progress.observe(0.0, {shards[0]: 0.0}, 1, 1)
    progress.shard_stored(shards[0])
    progress.observe(10.0, {}, 1, 1)
    assert progress.eta_seconds == pytest.approx(30.0)
    progress.observe(11.0, {}, 0, 0)
    assert progress.snapshot()["etaSeconds"] is None
    progress.observe(21.0, {shards[1]: 0.5}, 1, 1)
    assert progress.snapshot()["etaSeconds"]


def stalled(progress: Progress, shard: Shard, since: float, until: float, fraction: float) -> None:
    """Plays seconds in which a worker is busy with a shard and makes no step."""
    for second in range(int(since), int(until) + 1):
        progress.observe(float(second), {shard: fraction}, 2, 1)


def test_a_run_without_a_step_for_long_is_stalled_and_has_no_eta() -> None:
    progress = Progress(phase="sampling")
    first, second = shards_of(64, 32)
    progress.begin(64, 0, 2)
    for tenth in range(100):
        progress.observe(tenth / 10, {first: tenth / 100, second: tenth / 200}, 2, 2)
    progress.shard_stored(first)
    stalled(progress, second, 10, 10 + MIN_STALL_SECONDS, 0.5)
    assert progress.stalled_seconds is None
    assert progress.snapshot()["etaSeconds"] is not None
    stalled(progress, second, 10 + MIN_STALL_SECONDS, 90, 0.5)
    assert progress.stalled_seconds == 80.0
    assert progress.snapshot()["etaSeconds"] is None
    progress.observe(91.0, {second: 0.6}, 2, 1)
    assert progress.stalled_seconds is None


def test_a_run_whose_steps_are_long_is_not_stalled() -> None:
    progress = Progress(phase="sampling")
    (shard,) = shards_of(32, 32)
    progress.begin(32, 0, 1)
    for minute in range(5):
        stalled(progress, shard, 60 * minute, 60 * minute + 59, minute / 10)
    assert progress.stalled_seconds is None
    stalled(progress, shard, 300, 600, 0.4)
    assert progress.stalled_seconds is not None


def test_a_run_without_busy_workers_is_not_stalled() -> None:
    progress = Progress(phase="sampling")
    first, _ = shards_of(64, 32)
    progress.begin(64, 0, 2)
    progress.shard_stored(first)
    for second in range(300):
        progress.observe(float(second), {}, 0, 0)
    assert progress.stalled_seconds is None
