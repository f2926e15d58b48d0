"""The object cache with updates from watches, lists and the operator's own requests, in any order."""

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


def version(
    number: int, *, owner: ObjectKey = DIGITS, uid: str = "a", marked: bool = False
) -> Versioned[ObservedCluster]:
    return Versioned(owner, uid, number, ObservedCluster(f"cluster-{uid}", uid, 1, BEGAN, seen_by_kuberay=marked))


@pytest.fixture
def cache() -> ObjectCache[ObservedCluster]:
    return ObjectCache()


def names(cache: ObjectCache[ObservedCluster], key: ObjectKey = DIGITS) -> list[str]:
    return [cluster.name for cluster in cache.for_sampling(key)]


def test_objects_are_indexed_by_sampling(cache: ObjectCache[ObservedCluster]) -> None:
    cache.update(version(1))
    cache.update(version(2, owner=OTHER, uid="b"))
    assert (names(cache), names(cache, OTHER)) == (["cluster-a"], ["cluster-b"])
    assert cache.owners() == {DIGITS, OTHER}


def test_an_older_version_is_ignored(cache: ObjectCache[ObservedCluster]) -> None:
    assert cache.update(version(5, marked=True))
    assert not cache.update(version(4))
    assert not cache.update(version(5))
    assert cache.for_sampling(DIGITS)[0].seen_by_kuberay


def test_a_deleted_object_does_not_reappear(
    cache: ObjectCache[ObservedCluster],
) -> None:
    cache.update(version(1))
    cache.mark_deleted("a")
    assert names(cache) == []
    assert not cache.update(version(2))
    assert names(cache) == []
    assert cache.owners() == set()


def test_remove_returns_the_owner_once(cache: ObjectCache[ObservedCluster]) -> None:
    cache.update(version(1))
    assert cache.remove("a") == DIGITS
    assert cache.remove("a") is None
    assert names(cache) == []


def test_last_removed_returns_the_final_state(
    cache: ObjectCache[ObservedCluster],
) -> None:
    cache.update(version(1))
    cache.remove("a", version(2, marked=True))
    assert names(cache) == []
    last = cache.last_removed(DIGITS)
    assert last
    assert last.seen_by_kuberay
    assert cache.last_removed(OTHER) is None
    cache.forget_last_removed(DIGITS)
    cache.remove("a", version(3))
    assert cache.last_removed(DIGITS) is None


def test_a_list_adds_and_removes_what_the_watch_missed(cache: ObjectCache[ObservedCluster]) -> None:
    cache.update(version(1))
    cache.update(version(1, owner=OTHER, uid="b"))
    changed = cache.apply_list([version(1), version(3, owner=OTHER, uid="c")], known_before=cache.known_uids())
    assert changed == {OTHER}
    assert (names(cache), names(cache, OTHER)) == (["cluster-a"], ["cluster-c"])


def test_an_object_created_during_the_list_stays(cache: ObjectCache[ObservedCluster]) -> None:
    before = cache.known_uids()
    cache.update(version(7))
    assert cache.apply_list([], before) == set()
    assert names(cache) == ["cluster-a"]


def test_an_object_deleted_during_the_list_stays_deleted(cache: ObjectCache[ObservedCluster]) -> None:
    cache.update(version(1))
    before = cache.known_uids()
    cache.mark_deleted("a")
    assert cache.apply_list([version(1)], before) == set()
    assert names(cache) == []


def test_a_list_of_one_namespace_changes_no_other(cache: ObjectCache[ObservedCluster]) -> None:
    elsewhere = ObjectKey("elsewhere", "digits", "uid-3")
    cache.update(version(1))
    cache.update(version(1, owner=elsewhere, uid="b"))
    assert cache.apply_list([], cache.known_uids("elsewhere")) == {elsewhere}
    assert (names(cache), names(cache, elsewhere)) == (["cluster-a"], [])


def test_a_tombstone_stays_until_a_list_of_its_namespace(
    cache: ObjectCache[ObservedCluster],
) -> None:
    cache.update(version(1))
    cache.mark_deleted("a")
    cache.apply_list([], cache.known_uids("elsewhere"))
    assert not cache.update(version(2))
    cache.apply_list([], cache.known_uids("research"))
    assert cache.known_uids() == frozenset()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 6)),
        st.tuples(st.just("delete"), st.just(0)),
        st.tuples(st.just("list"), st.integers(1, 6)),
    ),
    max_size=12,
)


@given(STEPS)
def test_no_sequence_of_updates_revives_a_deleted_object(steps: list[tuple[str, int]]) -> None:
    cache: ObjectCache[ObservedCluster] = ObjectCache()
    operations: dict[str, Callable[[int], object]] = {
        "update": lambda number: cache.update(version(number)),
        "delete": lambda _: cache.mark_deleted("a"),
        "list": lambda number: cache.apply_list([version(number)], cache.known_uids()),
    }
    known, deleted = False, False
    for operation, number in steps:
        operations[operation](number)
        deleted = deleted or (known and operation == "delete")
        known = known or operation != "delete"
        assert names(cache) == (["cluster-a"] if known and not deleted else [])
