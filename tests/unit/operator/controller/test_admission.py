"""Whose turn it is, where only so many samplings may be at work at once."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.controller.admission import QueueEntry, next_to_start
from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.planning.limits import Limits

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def key(name: str) -> ObjectKey:
    """`a3` is the third sampling of the namespace a."""
    return ObjectKey(name[0], name, name)


def waiting(names: Collection[str]) -> dict[ObjectKey, QueueEntry]:
    return {
        key(name): QueueEntry(1, NOON + timedelta(seconds=int(name[1:])), None, holds=False, waits=True)
        for name in names
    }


def order(at_once: int | None, per_namespace: int | None, holding: str, wait: str, **begun: int) -> str:
    limits = Limits(at_once=at_once, at_once_per_namespace=per_namespace)
    last = {namespace: NOON + timedelta(seconds=seconds) for namespace, seconds in begun.items()}
    found = next_to_start(limits, [key(it) for it in holding.split()], waiting(wait.split()), last)
    return " ".join(it.name for it in found)


@pytest.mark.parametrize(
    ("at_once", "per_namespace", "holding", "wait", "turn"),
    [
        (1, None, "", "a2 a1 a3", "a1"),
        (1, None, "a1", "a2", ""),
        (1, None, "a1 a2", "a3", ""),
        (3, None, "a1", "a2 a3 b9", "b9 a2"),
        (9, None, "", "a1 a2 a3 b4 b5 c6", "a1 b4 c6 a2 b5 a3"),
        (None, 1, "a1", "a2 a3 b4 b5", "b4"),
        (None, 2, "a1", "a2 a3 b4 b5", "b4 a2 b5"),
        (3, 2, "a1 a2", "a3 a4 b5 b6", "b5"),
    ],
)
def test_the_namespace_with_the_fewest_goes_first_and_in_it_the_oldest(
    at_once: int | None, per_namespace: int | None, holding: str, wait: str, turn: str
) -> None:
    assert order(at_once, per_namespace, holding, wait) == turn


def test_of_namespaces_with_equally_many_the_one_that_has_begun_nothing_for_longest_goes_first() -> None:
    assert order(1, None, "", "a1 b2 c3", a=30, b=20, c=25) == "b2"
    assert order(1, None, "", "a1 b2 c3", a=30, b=20) == "c3"


NAMES = st.sampled_from([f"{namespace}{number}" for namespace in "abc" for number in range(6)])


@given(st.none() | st.integers(1, 6), st.none() | st.integers(1, 3), st.sets(NAMES), st.sets(NAMES))
def test_every_place_is_given_and_none_too_many(
    at_once: int | None, per_namespace: int | None, holding: set[str], wait: set[str]
) -> None:
    wait -= holding
    limits = Limits(at_once=at_once, at_once_per_namespace=per_namespace)
    found = next_to_start(limits, [key(it) for it in holding], waiting(wait), {})
    assert len(set(found)) == len(found)
    assert {it.name for it in found} <= wait
    most, most_of_one = at_once or 99, per_namespace or 99

    def all_of(namespace: str, names: Collection[str]) -> int:
        return sum(name[0] == namespace for name in names)

    at_work = [*holding, *(it.name for it in found)]
    assert not found or len(at_work) <= most
    for namespace in "abc":
        let_in = all_of(namespace, [it.name for it in found])
        assert not let_in or all_of(namespace, at_work) <= most_of_one
        left = all_of(namespace, wait) - let_in
        assert not left or len(at_work) >= most or all_of(namespace, at_work) >= most_of_one
