"""An administrator limits how many samplings are at work at once: the others wait for their turn."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest

from tests.cluster.kube import Manifest, Namespace, phase
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import SMALL, Sampling, nothing_is_left

# Long enough for an operator to be installed while it runs.
A_WHILE = SMALL | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}


def time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def message(seen: Manifest, kind: str) -> str:
    return next(it["message"] for it in seen["status"]["conditions"] if it["type"] == kind)


@pytest.mark.long
@pytest.mark.operator_away
def test_samplings_take_turns_where_only_one_of_a_namespace_may_be_at_work(
    namespace: Namespace, operator: Operator
) -> None:
    first = Sampling.apply(namespace, "first", A_WHILE)
    first.wait_for("Running")
    try:
        replace(operator, values=("atOnce.perNamespace=1",)).install()
        second, third = (Sampling.apply(namespace, name, SMALL) for name in ("second", "third"))
        for waiting in (second, third):
            seen = waiting.wait(lambda it: phase(it) == "Queued", "to be queued")
            assert message(seen, "ClusterReady") == (
                "It waits for its turn: the administrator lets 1 sampling of a namespace work at once."
            )
        operator.kill()
        ended = [it.wait_until_complete(samples)["status"] for it, samples in ((first, 128), (second, 16), (third, 16))]
    finally:
        operator.install()
    for before, after in pairwise(ended):
        assert time(before["completionTime"]) <= time(after["startTime"])
    assert [status["attempt"] for status in ended] == [1, 1, 1]


@pytest.mark.long
@pytest.mark.operator_away
def test_a_namespace_that_has_none_at_work_is_next_though_others_have_waited_longer(
    namespace: Namespace, operator: Operator
) -> None:
    replace(operator, values=("atOnce.all=2",)).install()
    try:
        with namespace.cluster.namespace(f"ddpm-test-{secrets.token_hex(4)}") as neighbour:
            spec = SMALL | {"samples": 256, "sampler": {"name": "ddpm", "steps": 200}}
            short, long = Sampling.apply(namespace, "short", A_WHILE), Sampling.apply(namespace, "long", spec)
            for at_work in (short, long):
                at_work.wait_for("Running")
            third = Sampling.apply(namespace, "third", SMALL)
            queued = third.wait(lambda it: phase(it) == "Queued", "third to be queued")
            assert message(queued, "ClusterReady") == (
                "It waits for its turn: the administrator lets 2 samplings work at once."
            )
            others = Sampling.apply(neighbour, "others", SMALL)
            others.wait(lambda it: phase(it) == "Queued", "the neighbour's to be queued")
            ended = {
                it.name: it.wait_until_complete(samples)["status"]
                for it, samples in ((others, 16), (short, 128), (third, 16), (long, 256))
            }
            for place in (namespace, neighbour):
                nothing_is_left(place)
    finally:
        operator.install()
    assert time(ended["short"]["completionTime"]) <= time(ended["others"]["startTime"])
    assert time(ended["others"]["startTime"]) < time(ended["third"]["startTime"])
    assert time(ended["others"]["startTime"]) < time(ended["long"]["completionTime"])
