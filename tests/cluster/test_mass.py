"""More samplings than fit into the operator's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cluster.disruptions import scaled_to_zero
from tests.cluster.kube import Namespace
from tests.cluster.metrics import metrics_text, series, total
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, KIND, LIGHT, Sampling

MANY = 500
BULK = "x" * 200_000
# A single list of all objects would need about 380 MiB.
MEMORY_LIMIT = "256Mi"
SEEN_TIMEOUT = 300.0


@pytest.fixture
def small_operator(operator: Operator) -> Iterator[Operator]:
    """The operator with a lower memory limit than its default."""
    replace(operator, values=(f"resources.limits.memory={MEMORY_LIMIT}",)).install()
    try:
        yield operator
    finally:
        operator.install()


@pytest.mark.long
@pytest.mark.operator_away
def test_the_operator_starts_with_more_samplings_than_memory(namespace: Namespace, small_operator: Operator) -> None:
    resource = namespace.cluster.resource(API, KIND)
    names = [f"digits-{number:03}" for number in range(MANY)]
    with scaled_to_zero(namespace.cluster, f"{small_operator.release}-operator"):
        for name in names:
            metadata = {"name": name, "annotations": {"example.com/bulk": BULK}}
            body = {"apiVersion": API, "kind": KIND, "metadata": metadata, "spec": LIGHT | {"suspend": True}}
            resource.create(body=body, namespace=namespace.name)
    for name in (names[-1], names[0]):
        Sampling(namespace, name).wait_for("Suspended", SEEN_TIMEOUT)
    assert total(series(metrics_text(small_operator)), "ddpm_samplings") >= MANY
    assert set(small_operator.restarts().values()) == {0}
