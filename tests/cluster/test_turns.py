"""Limits on concurrent samplings: the others are queued and admitted in a fair order."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest

from tests.cluster.kube import Manifest, Namespace, phase
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left

# Long enough to install an operator meanwhile.
SHORT_RUN = SMALL | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}


def time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def message(seen: Manifest, kind: str) -> str:
    return next(it["message"] for it in seen["status"]["conditions"] if it["type"] == kind)


@pytest.mark.long
@pytest.mark.operator_away
def test_the_limit_per_namespace_queues_samplings(namespace: Namespace, operator: Operator) -> None:
    first = Sampling.apply(namespace, "first", SHORT_RUN)
    first.wait_for("Running")
    try:
        replace(operator, values=("atOnce.perNamespace=1",)).install()
        second, third = (Sampling.apply(namespace, name, SMALL) for name in ("second", "third"))
        for waiting in (second, third):
            seen = waiting.wait(lambda it: phase(it) == "Queued", "to be queued")
            assert message(seen, "ClusterReady") == (
                "Waiting for a free slot: the administrator allows 1 sampling at once in a namespace."
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
def test_an_idle_namespace_is_admitted_first(namespace: Namespace, operator: Operator) -> None:
    replace(operator, values=("atOnce.all=2",)).install()
    try:
        with namespace.cluster.namespace(f"ddpm-test-{secrets.token_hex(4)}") as neighbour:
            spec = SMALL | {"samples": 256, "sampler": {"name": "ddpm", "steps": 200}}
            short, long = Sampling.apply(namespace, "short", SHORT_RUN), Sampling.apply(namespace, "long", spec)
            for sampling in (short, long):
                sampling.wait_for("Running")
            third = Sampling.apply(namespace, "third", SMALL)
            queued = third.wait(lambda it: phase(it) == "Queued", "third to be queued")
            assert message(queued, "ClusterReady") == (
                "Waiting for a free slot: the administrator allows 2 samplings at once."
            )
            others = Sampling.apply(neighbour, "others", SMALL)
            others.wait(lambda it: phase(it) == "Queued", "the other namespace's sampling to be queued")
            ended = {
                it.name: it.wait_until_complete(samples)["status"]
                for it, samples in ((others, 16), (short, 128), (third, 16), (long, 256))
            }
            for each in (namespace, neighbour):
                assert_nothing_left(each)
    finally:
        operator.install()
    assert time(ended["short"]["completionTime"]) <= time(ended["others"]["startTime"])
    assert time(ended["others"]["startTime"]) < time(ended["third"]["startTime"])
    assert time(ended["others"]["startTime"]) < time(ended["long"]["completionTime"])
