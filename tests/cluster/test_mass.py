"""More samplings than would fit into the operator's memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.cluster.hindrances import without
from tests.cluster.kube import Namespace
from tests.cluster.metrics import metrics_text, series, total
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, KIND, LIGHT, Sampling

MANY = 500
BULK = "x" * 200_000
# As one list they take the operator to about 380 MiB.
TIGHT = "256Mi"
SEEN_WITHIN = 300.0


@pytest.fixture
def tight(operator: Operator) -> Iterator[Operator]:
    """The operator with less memory than it has by default."""
    replace(operator, values=(f"resources.limits.memory={TIGHT}",)).install()
    try:
        yield operator
    finally:
        operator.install()


@pytest.mark.long
@pytest.mark.operator_away
def test_an_operator_starts_beside_more_than_its_memory_holds(namespace: Namespace, tight: Operator) -> None:
    resource = namespace.cluster.resource(API, KIND)
    names = [f"digits-{number:03}" for number in range(MANY)]
    with without(namespace.cluster, f"{tight.release}-operator"):
        for name in names:
            metadata = {"name": name, "annotations": {"example.com/bulk": BULK}}
            body = {"apiVersion": API, "kind": KIND, "metadata": metadata, "spec": LIGHT | {"suspend": True}}
            resource.create(body=body, namespace=namespace.name)
    for name in (names[-1], names[0]):
        Sampling(namespace, name).wait_for("Suspended", SEEN_WITHIN)
    assert total(series(metrics_text(tight)), "ddpm_samplings") >= MANY
    assert set(tight.restarts().values()) == {0}
