"""The shard queue under every order of events: no shard is lost, sampled twice, or retried without end."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from ddpm_inference.errors import Incomplete, OutOfMemory, WorkerLost
from ddpm_inference.job import Shard, shards_of
from ddpm_inference.ray_backend.shard_queue import (
    MAX_ATTEMPTS,
    MAX_FAILURES_WITHOUT_SUCCESS,
    ShardQueue,
    format_ranges,
)

A, B, C = shards_of(96, 32)
ONE, TWO = 1, 2
BAD = Incomplete("it does not work")


def queue_of(*shards: Shard) -> ShardQueue:
    return ShardQueue(shards)


def test_shards_are_handed_out_once_and_in_order() -> None:
    queue = queue_of(A, B)
    assert [queue.take(worker, {ONE, TWO}) for worker in (ONE, TWO, ONE)] == [A, B, None]


def test_shards_are_unfinished_until_they_have_an_outcome() -> None:
    queue = queue_of(A, B)
    queue.take(ONE, {ONE})
    queue.take(ONE, {ONE})
    queue.mark_stored(A)
    assert queue.unfinished == 1
    queue.mark_stored(B)
    assert not queue.unfinished


def test_idle_workers_are_assigned_a_shard_before_others_get_a_second() -> None:
    queue = ShardQueue(shards_of(5 * 32, 32))
    assigned = queue.assign({ONE: 1, TWO: 0, 3: 2}, {ONE, TWO, 3}, 2)
    assert [(worker, shard.first) for worker, shard in assigned] == [(TWO, 0), (ONE, 32), (TWO, 64)]


def test_a_failed_shard_goes_to_another_worker_first() -> None:
    queue = queue_of(A, B)
    queue.take(ONE, {ONE, TWO})
    queue.mark_failed(A, ONE, BAD)
    assert queue.take(ONE, {ONE, TWO}) == B
    assert queue.take(TWO, {ONE, TWO}) == A


def test_a_single_worker_retries_its_own_failures() -> None:
    queue = queue_of(A)
    for _ in range(MAX_ATTEMPTS):
        assert queue.take(ONE, {ONE}) == A
        queue.mark_failed(A, ONE, BAD)
    assert queue.take(ONE, {ONE}) is None
    assert queue.failed == {A: BAD}


def test_a_shard_that_failed_on_all_workers_gets_its_last_attempt() -> None:
    queue = queue_of(A)
    for worker in (ONE, TWO, ONE):
        assert queue.take(worker, {ONE, TWO}) == A
        queue.mark_failed(A, worker, BAD)
    assert list(queue.failed) == [A]


def test_the_first_cause_is_kept() -> None:
    queue = queue_of(A)
    for cause in (BAD, OutOfMemory("later"), OutOfMemory("last")):
        queue.take(ONE, {ONE})
        queue.mark_failed(A, ONE, cause)
    assert queue.failed == {A: BAD}


def test_any_other_cause_replaces_a_lost_worker() -> None:
    queue, out_of_memory = queue_of(A), OutOfMemory("Ray killed a worker because its node is running out of memory")
    for cause in (WorkerLost("it is restarted"), out_of_memory, WorkerLost("it is restarted again")):
        queue.take(ONE, {ONE})
        queue.mark_failed(A, ONE, cause)
    assert queue.failed == {A: out_of_memory}


def test_a_requeued_shard_keeps_its_attempts() -> None:
    queue = queue_of(A, B)
    for _ in range(10 * MAX_ATTEMPTS):
        assert queue.take(ONE, {ONE}) == A
        queue.requeue(A)
    queue.take(ONE, {ONE})
    assert not queue.mark_failed(A, ONE, BAD)


def test_a_slow_shard_is_handed_out_again_once() -> None:
    queue = queue_of(A, B)
    queue.take(ONE, {ONE})
    assert queue.mark_slow(A)
    assert queue.take(TWO, {TWO}) == A
    assert not queue.mark_slow(A)
    assert not queue.mark_failed(A, TWO, BAD)
    queue.take(ONE, {ONE, TWO})
    assert not queue.mark_failed(A, ONE, BAD)
    queue.take(3, {3})
    assert queue.mark_failed(A, 3, BAD)


def test_a_queued_shard_moves_only_to_a_worker_it_may_run_on() -> None:
    queue = queue_of(A, B)
    queue.take(ONE, {ONE, TWO})
    assert queue.may_take(A, TWO, {ONE, TWO})
    queue.mark_failed(A, TWO, BAD)
    assert queue.take(ONE, {ONE, TWO}) == A
    assert not queue.may_take(A, TWO, {ONE, TWO})


def test_a_run_without_any_success_is_soon_hopeless() -> None:
    queue = ShardQueue(shards_of(32 * 1000, 32))
    while not queue.is_hopeless:
        shard = queue.take(ONE, {ONE})
        assert shard is not None
        queue.mark_failed(shard, ONE, BAD)
    assert len(queue.failed) == MAX_FAILURES_WITHOUT_SUCCESS


def test_after_one_success_a_run_is_not_hopeless() -> None:
    queue = ShardQueue(shards_of(32 * 100, 32))
    first = queue.take(ONE, {ONE})
    assert first is not None
    queue.mark_stored(first)
    while shard := queue.take(ONE, {ONE}):
        queue.mark_failed(shard, ONE, BAD)
    assert not queue.unfinished
    assert len(queue.failed) == 99
    assert not queue.is_hopeless


EVENTS = st.lists(st.tuples(st.sampled_from(["take", "store", "fail", "requeue"]), st.integers(0, 4)), max_size=300)


@given(st.integers(1, 12), EVENTS)
def test_no_order_of_events_loses_or_repeats_a_shard(count: int, events: list[tuple[str, int]]) -> None:
    shards = set(shards_of(count * 8, 8))
    queue, workers = ShardQueue(sorted(shards, key=lambda shard: shard.first)), {0, 1, 2}
    in_flight: list[tuple[int, Shard]] = []
    stored: set[Shard] = set()

    def apply(event: str, number: int) -> None:
        if event == "take":
            shard = queue.take(number % 3, workers)
            if shard is not None:
                assert shard not in {each for _, each in in_flight}
                assert shard not in stored
                in_flight.append((number % 3, shard))
            return
        if not in_flight:
            return
        worker, shard = in_flight.pop(number % len(in_flight))
        if event == "store":
            queue.mark_stored(shard)
            stored.add(shard)
        elif event == "fail":
            queue.mark_failed(shard, worker, BAD)
        else:
            queue.requeue(shard)

    for event, number in events:
        apply(event, number)
    # After any history, a run without further failures finishes every shard.
    for round_number in range(10 * count):
        apply("take", round_number)
        apply("store", 0)
    assert not queue.unfinished
    assert stored | set(queue.failed) == shards
    assert not stored & set(queue.failed)


def test_adjacent_ranges_are_joined_and_long_lists_cut() -> None:
    assert format_ranges([B, A]) == "0 to 63"
    assert format_ranges([C, A]) == "0 to 31, 64 to 95"
    every_other = list(shards_of(32 * 20, 32))[::2]
    assert format_ranges(every_other, max_ranges=2) == "0 to 31, 64 to 95, 8 more ranges"
