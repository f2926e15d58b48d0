"""Rate and remaining time, with the clock in the test's hand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ddpm_inference.job import Shard, shards_of
from ddpm_inference.progress import WINDOW_SECONDS, Progress, rounds


def simulate(
    shards: list[Shard], workers: int, seconds_a_shard: float, progress: Progress, tick: float = 0.5
) -> Iterator[float]:
    """Plays a run in which every shard takes equally long, as the dispatch would report it; yields the time."""
    todo, running, now = list(shards), dict[Shard, float](), 100.0
    while True:
        while todo and len(running) < workers:
            running[todo.pop(0)] = now
        parts = {shard: (now - began) / seconds_a_shard for shard, began in running.items()}
        progress.observe(now, parts, workers, len(running))
        if not running:
            return
        if now > 100.0:
            yield now
        now += tick
        for shard, began in list(running.items()):
            if now >= began + seconds_a_shard:
                del running[shard]
                progress.finished(shard)


def times_left(n: int, batch: int, workers: int, done_before: int) -> Iterator[tuple[float, float | None]]:
    """(what was left in truth, what was said) in seconds, every half second of a run."""
    shards = [shard for shard in shards_of(n, batch) if shard.first >= done_before]
    progress = Progress()
    progress.begin(n, done_before, len(shards))
    said = [(now, progress.eta_seconds) for now in simulate(shards, workers, 10.0, progress)]
    end = said[-1][0] + 0.5
    return ((end - now, eta) for now, eta in said)


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
def test_the_remaining_time_is_right_from_the_first_second_to_the_end(
    n: int, batch: int, workers: int, done_before: int
) -> None:
    for truth, eta in times_left(n, batch, workers, done_before):
        assert eta == pytest.approx(truth, rel=0.02, abs=1.0)


def test_the_rate_counts_what_this_run_does_and_not_what_it_found() -> None:
    progress = Progress()
    shards = [shard for shard in shards_of(10_000, 100) if shard.first >= 9_000]
    progress.begin(10_000, 9_000, len(shards))
    for _ in simulate(shards, 2, 10.0, progress):
        rate = progress.samples_per_second
        assert rate == pytest.approx(20.0, rel=0.05)
    assert progress.done == 10_000


def test_time_before_the_first_worker_is_there_does_not_count() -> None:
    progress = Progress()
    progress.begin(200, 0, 2)
    for second in range(100):
        progress.observe(float(second), {}, 0, 0)
    first, _ = shards_of(200, 100)
    progress.observe(100.0, {first: 0.0}, 1, 1)
    progress.observe(101.0, {first: 0.1}, 1, 1)
    assert progress.samples_per_second == pytest.approx(10.0)
    assert progress.eta_seconds == pytest.approx(19.0)


def test_the_rate_forgets_what_is_more_than_a_window_ago() -> None:
    progress = Progress()
    shards = list(shards_of(100_000, 100))
    progress.begin(100_000, 0, len(shards))
    for index, shard in enumerate(shards[:600]):
        seconds = index * 0.1 if index < 300 else 30.0 + (index - 300)
        progress.finished(shard)
        progress.observe(seconds, {}, 1, 1)
        if index > 300 + WINDOW_SECONDS + 1:
            assert progress.samples_per_second == pytest.approx(100.0, rel=0.02)


def test_nothing_is_claimed_before_anything_moved() -> None:
    progress = Progress()
    progress.begin(100, 0, 4)
    first = Shard(first=0, last=31)
    progress.observe(0.0, {first: 0.0}, 1, 1)
    progress.observe(5.0, {first: 0.0}, 1, 1)
    document = progress.snapshot()
    assert document["samplesPerSecond"] is None
    assert document["etaSeconds"] is None


def test_the_document_has_the_fields_of_the_contract() -> None:
    progress = Progress(phase="sampling", message="all is well")
    progress.begin(100, 25, 3)
    assert progress.snapshot() == {
        "version": 1,
        "phase": "sampling",
        "done": 25,
        "total": 100,
        "percent": 25.0,
        "samplesPerSecond": None,
        "etaSeconds": None,
        "message": "all is well",
    }


def test_shards_that_are_given_up_are_not_waited_for() -> None:
    progress = Progress()
    first, second = shards_of(200, 100)
    progress.begin(200, 0, 2)
    progress.finished(first)
    progress.given_up(second)
    assert progress.eta_seconds == 0.0


def brute_force(running: list[float], pending: int, workers: int) -> float:
    free = running + [0.0] * (workers - len(running))
    for _ in range(pending):
        free[free.index(min(free))] += 1.0
    return max(free)


@given(st.lists(st.floats(0, 1), max_size=6), st.integers(0, 60), st.integers(1, 6))
def test_the_number_of_rounds_is_that_of_a_simulation(running: list[float], pending: int, workers: int) -> None:
    workers = max(workers, len(running))
    exact = brute_force(running, pending, workers)
    assert rounds(running, pending, workers) == pytest.approx(exact, abs=1.0 if pending > 4 * workers else 1e-9)


@given(st.lists(st.floats(0, 1), max_size=4), st.integers(1, 4))
def test_more_work_never_takes_less_time(running: list[float], workers: int) -> None:
    times = [rounds(running, pending, max(workers, len(running))) for pending in range(100)]
    assert all(a <= b + 1e-9 for a, b in pairwise(times))


def test_before_anybody_has_looked_what_there_is_to_do_no_end_is_foretold() -> None:
    assert Progress().snapshot()["etaSeconds"] is None


def test_where_nothing_is_left_to_do_the_end_is_now() -> None:
    progress = Progress()
    progress.begin(100, 100, 0)
    assert progress.snapshot()["etaSeconds"] == 0.0


def test_while_all_workers_are_lost_no_end_is_foretold_and_then_one_is_again() -> None:
    progress = Progress()
    shards = [Shard(first=32 * k, last=32 * k + 31) for k in range(4)]
    progress.begin(128, 0, 4)
    progress.observe(0.0, {shards[0]: 0.0}, 1, 1)
    progress.finished(shards[0])
    progress.observe(10.0, {}, 1, 1)
    assert progress.eta_seconds == pytest.approx(30.0)
    progress.observe(11.0, {}, 0, 0)
    assert progress.snapshot()["etaSeconds"] is None
    progress.observe(21.0, {shards[1]: 0.5}, 1, 1)
    assert progress.snapshot()["etaSeconds"]
