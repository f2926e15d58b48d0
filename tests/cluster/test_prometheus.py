"""A real Prometheus finds the operator by what the chart says, and misses it when it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.hindrances import without
from tests.cluster.operator_release import RELEASE, Operator
from tests.cluster.prometheus import OPERATOR, monitored, prometheus

# To build it takes minutes; it runs here, and asks pods by their addresses.
pytestmark = [pytest.mark.long, pytest.mark.node, pytest.mark.alone]

SEEN_WITHIN = 90.0
SERIES = (
    f'ddpm_operator_reconciles_total{{{OPERATOR}, result="crashed"}}',
    f'ddpm_samplings_ended_total{{{OPERATOR}, reason="WorkerLost"}}',
    f"ddpm_samplings_outlived_by_cluster{{{OPERATOR}}}",
)


@pytest.fixture
def with_metrics(operator: Operator) -> Iterator[Operator]:
    """The release, whose metrics anybody may read. The cluster does not know ServiceMonitors."""
    release = replace(operator, values=("metrics.enabled=true",))
    release.install()
    yield release
    operator.install()


def test_prometheus_finds_the_operator_and_misses_it_when_it_is_gone(with_metrics: Operator, tmp_path: Path) -> None:
    cluster = with_metrics.cluster
    assert cluster.kubeconfig
    with prometheus(tmp_path, monitored(), cluster.kubeconfig) as server:
        up = f"up{{{OPERATOR}}}"
        server.wait(lambda: list(server.values(up).values()) == [1.0], SEEN_WITHIN, "the operator to be up")
        assert server.values("up") == server.values(up), "Prometheus has found more than the operator"
        # What the alerts go by has the labels that they ask for, and is there before anything has happened.
        for series in SERIES:
            assert len(server.values(series)) == 1
        server.wait(lambda: not server.alerts(), SEEN_WITHIN, "no alert once it is known")
        with without(cluster, f"{RELEASE}-operator"):
            server.wait(server.alerts, SEEN_WITHIN, "an alert")
            assert server.alerts() == {"DDPMOperatorAbsent": "pending"}
        server.wait(lambda: not server.alerts(), SEEN_WITHIN, "no alert once it is back")
