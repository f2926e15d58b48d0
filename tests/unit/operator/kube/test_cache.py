"""What watches, lists and the operator's own requests tell of one object, in whatever order it comes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.kube.cache import ObjectCache
from ddpm_operator.kube.objects import ObjectKey, Versioned
from ddpm_operator.reconcile.observed import ObservedCluster

DIGITS, OTHER = ObjectKey("research", "digits", "uid-1"), ObjectKey("research", "other", "uid-2")
BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


def sight(version: int, *, of: ObjectKey = DIGITS, uid: str = "a", ready: bool = False) -> Versioned[ObservedCluster]:
    return Versioned(of, uid, version, ObservedCluster(f"cluster-{uid}", uid, 1, BEGAN, heeded=ready))


@pytest.fixture
def seen() -> ObjectCache[ObservedCluster]:
    return ObjectCache()


def names(seen: ObjectCache[ObservedCluster], key: ObjectKey = DIGITS) -> list[str]:
    return [cluster.name for cluster in seen.of(key)]


def test_each_sampling_has_its_own(seen: ObjectCache[ObservedCluster]) -> None:
    seen.saw(sight(1))
    seen.saw(sight(2, of=OTHER, uid="b"))
    assert (names(seen), names(seen, OTHER)) == (["cluster-a"], ["cluster-b"])
    assert seen.owners() == {DIGITS, OTHER}


def test_a_late_sight_of_the_past_is_no_news(seen: ObjectCache[ObservedCluster]) -> None:
    assert seen.saw(sight(5, ready=True))
    assert not seen.saw(sight(4))
    assert not seen.saw(sight(5))
    assert seen.of(DIGITS)[0].heeded


def test_what_the_operator_has_deleted_is_gone_at_once_and_does_not_come_back(
    seen: ObjectCache[ObservedCluster],
) -> None:
    seen.saw(sight(1))
    seen.deleted("a")
    assert names(seen) == []
    assert not seen.saw(sight(2))
    assert names(seen) == []
    assert seen.owners() == set()


def test_the_end_that_a_watch_tells_is_told_to_its_sampling(seen: ObjectCache[ObservedCluster]) -> None:
    seen.saw(sight(1))
    assert seen.gone("a") == DIGITS
    assert seen.gone("a") is None
    assert names(seen) == []


def test_what_is_gone_is_remembered_as_it_was_in_the_end_until_it_is_forgotten(
    seen: ObjectCache[ObservedCluster],
) -> None:
    seen.saw(sight(1))
    seen.gone("a", sight(2, ready=True))
    assert names(seen) == []
    departed = seen.departed(DIGITS)
    assert departed
    assert departed.heeded
    assert seen.departed(OTHER) is None
    seen.forget(DIGITS)
    seen.gone("a", sight(3))
    assert seen.departed(DIGITS) is None


def test_a_list_finds_what_the_watch_has_missed(seen: ObjectCache[ObservedCluster]) -> None:
    seen.saw(sight(1))
    seen.saw(sight(1, of=OTHER, uid="b"))
    changed = seen.listed([sight(1), sight(3, of=OTHER, uid="c")], before=seen.known())
    assert changed == {OTHER}
    assert (names(seen), names(seen, OTHER)) == (["cluster-a"], ["cluster-c"])


def test_what_was_made_while_the_list_was_on_its_way_stays(seen: ObjectCache[ObservedCluster]) -> None:
    before = seen.known()
    seen.saw(sight(7))
    assert seen.listed([], before) == set()
    assert names(seen) == ["cluster-a"]


def test_what_was_deleted_while_the_list_was_on_its_way_stays_away(seen: ObjectCache[ObservedCluster]) -> None:
    seen.saw(sight(1))
    before = seen.known()
    seen.deleted("a")
    assert seen.listed([sight(1)], before) == set()
    assert names(seen) == []


def test_a_list_of_one_namespace_says_nothing_of_others(seen: ObjectCache[ObservedCluster]) -> None:
    elsewhere = ObjectKey("elsewhere", "digits", "uid-3")
    seen.saw(sight(1))
    seen.saw(sight(1, of=elsewhere, uid="b"))
    assert seen.listed([], seen.known("elsewhere")) == {elsewhere}
    assert (names(seen), names(seen, elsewhere)) == (["cluster-a"], [])


def test_what_was_deleted_stays_away_until_a_list_of_its_own_namespace_lacks_it(
    seen: ObjectCache[ObservedCluster],
) -> None:
    seen.saw(sight(1))
    seen.deleted("a")
    seen.listed([], seen.known("elsewhere"))
    assert not seen.saw(sight(2))
    seen.listed([], seen.known("research"))
    assert seen.known() == frozenset()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("saw"), st.integers(1, 6)),
        st.tuples(st.just("deleted"), st.just(0)),
        st.tuples(st.just("listed"), st.integers(1, 6)),
    ),
    max_size=12,
)


@given(STEPS)
def test_after_its_deletion_nothing_but_its_end_is_heard_of_an_object(steps: list[tuple[str, int]]) -> None:
    seen: ObjectCache[ObservedCluster] = ObjectCache()
    doing: dict[str, Callable[[int], object]] = {
        "saw": lambda version: seen.saw(sight(version)),
        "deleted": lambda _: seen.deleted("a"),
        "listed": lambda version: seen.listed([sight(version)], seen.known()),
    }
    known, deleted = False, False
    for what, version in steps:
        doing[what](version)
        deleted = deleted or (known and what == "deleted")
        known = known or what != "deleted"
        assert names(seen) == (["cluster-a"] if known and not deleted else [])
