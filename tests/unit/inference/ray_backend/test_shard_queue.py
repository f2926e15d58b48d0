"""The ledger under every order of events: no shard is lost, none is done twice, none is tried for ever."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from ddpm_inference.errors import Incomplete, OutOfMemory, WorkerLost
from ddpm_inference.job import Shard, shards_of
from ddpm_inference.ray_backend.shard_queue import ATTEMPTS, HOPELESS, ShardQueue, ranges

A, B, C = shards_of(96, 32)
ONE, TWO = 1, 2
BAD = Incomplete("it does not work")


def ledger(*shards: Shard) -> ShardQueue:
    return ShardQueue(shards)


def test_shards_are_handed_out_once_and_in_order() -> None:
    book = ledger(A, B)
    assert [book.take(ONE, {ONE, TWO}), book.take(TWO, {ONE, TWO}), book.take(ONE, {ONE, TWO})] == [A, B, None]


def test_the_book_is_open_until_every_shard_has_an_outcome() -> None:
    book = ledger(A, B)
    book.take(ONE, {ONE})
    book.take(ONE, {ONE})
    book.stored(A)
    assert book.open == 1
    book.stored(B)
    assert not book.open


def test_a_failed_shard_goes_to_another_worker_first() -> None:
    book = ledger(A, B)
    book.take(ONE, {ONE, TWO})
    book.failure(A, ONE, BAD)
    assert book.take(ONE, {ONE, TWO}) == B
    assert book.take(TWO, {ONE, TWO}) == A


def test_a_worker_that_is_alone_tries_again_what_failed_on_it() -> None:
    book = ledger(A)
    for _ in range(ATTEMPTS):
        assert book.take(ONE, {ONE}) == A
        book.failure(A, ONE, BAD)
    assert book.take(ONE, {ONE}) is None
    assert book.failed == {A: BAD}


def test_a_shard_that_failed_on_every_worker_is_still_tried_to_the_last_attempt() -> None:
    book = ledger(A)
    for worker in (ONE, TWO, ONE):
        assert book.take(worker, {ONE, TWO}) == A
        book.failure(A, worker, BAD)
    assert list(book.failed) == [A]


def test_the_first_cause_is_the_one_that_is_kept() -> None:
    book = ledger(A)
    for cause in (BAD, OutOfMemory("later"), OutOfMemory("last")):
        book.take(ONE, {ONE})
        book.failure(A, ONE, cause)
    assert book.failed == {A: BAD}


def test_that_a_worker_is_gone_is_no_cause_as_long_as_there_is_another() -> None:
    book, starved = ledger(A), OutOfMemory("Ray ended a worker since its node runs out of memory")
    for cause in (WorkerLost("it is restarted"), starved, WorkerLost("it is restarted again")):
        book.take(ONE, {ONE})
        book.failure(A, ONE, cause)
    assert book.failed == {A: starved}


def test_a_shard_that_was_lost_with_its_worker_loses_no_attempt() -> None:
    book = ledger(A, B)
    for _ in range(10 * ATTEMPTS):
        assert book.take(ONE, {ONE}) == A
        book.lost(A)
    book.take(ONE, {ONE})
    assert not book.failure(A, ONE, BAD)


def test_a_run_without_any_success_is_given_up_early() -> None:
    book = ShardQueue(shards_of(32 * 1000, 32))
    while not book.hopeless:
        shard = book.take(ONE, {ONE})
        assert shard is not None
        book.failure(shard, ONE, BAD)
    assert len(book.failed) == HOPELESS


def test_one_success_keeps_a_run_going() -> None:
    book = ShardQueue(shards_of(32 * 100, 32))
    first = book.take(ONE, {ONE})
    assert first is not None
    book.stored(first)
    while shard := book.take(ONE, {ONE}):
        book.failure(shard, ONE, BAD)
    assert not book.open
    assert len(book.failed) == 99
    assert not book.hopeless


EVENTS = st.lists(st.tuples(st.sampled_from(["take", "store", "fail", "lose"]), st.integers(0, 4)), max_size=300)


@given(st.integers(1, 12), EVENTS)
def test_no_order_of_events_loses_or_doubles_a_shard(count: int, events: list[tuple[str, int]]) -> None:
    shards = set(shards_of(count * 8, 8))
    book, workers = ShardQueue(sorted(shards, key=lambda shard: shard.first)), {0, 1, 2}
    out: list[tuple[int, Shard]] = []
    stored: set[Shard] = set()

    def happen(event: str, number: int) -> None:
        if event == "take":
            shard = book.take(number % 3, workers)
            if shard is not None:
                assert shard not in {each for _, each in out}
                assert shard not in stored
                out.append((number % 3, shard))
            return
        if not out:
            return
        worker, shard = out.pop(number % len(out))
        if event == "store":
            book.stored(shard)
            stored.add(shard)
        elif event == "fail":
            book.failure(shard, worker, BAD)
        else:
            book.lost(shard)

    for event, number in events:
        happen(event, number)
    # Whatever happened, steady work brings every shard to an end.
    for round_number in range(10 * count):
        happen("take", round_number)
        happen("store", 0)
    assert not book.open
    assert stored | set(book.failed) == shards
    assert not stored & set(book.failed)


def test_ranges_of_samples_are_joined_and_cut_short() -> None:
    assert ranges([B, A]) == "0 to 63"
    assert ranges([C, A]) == "0 to 31, 64 to 95"
    every_other = list(shards_of(32 * 20, 32))[::2]
    assert ranges(every_other, most=2) == "0 to 31, 64 to 95, 8 ranges more"
