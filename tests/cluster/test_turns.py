"""An administrator lets only one sampling of a namespace be at work: the others wait for their turn."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import pytest

from tests.cluster.kube import Manifest, Namespace, phase
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import SMALL, Sampling

# Long enough for an operator to be installed while it runs.
A_WHILE = SMALL | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}


def time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def message(seen: Manifest, kind: str) -> str:
    return next(it["message"] for it in seen["status"]["conditions"] if it["type"] == kind)


@pytest.mark.long
@pytest.mark.alone
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
        ended = [
            it.wait_until_complete(samples)["status"] for it, samples in ((first, 128), (second, 16), (third, 16))
        ]
    finally:
        operator.install()
    for before, after in pairwise(ended):
        assert time(before["completionTime"]) <= time(after["startTime"])
    assert [status["attempt"] for status in ended] == [1, 1, 1]
