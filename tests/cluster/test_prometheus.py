"""A real Prometheus discovers the operator through the chart's ServiceMonitor, and alerts when it is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.disruptions import scaled_to_zero
from tests.cluster.operator_release import RELEASE, Operator
from tests.cluster.prometheus import OPERATOR, monitored, prometheus

# Building Prometheus takes minutes. It runs on this machine and scrapes pods by their addresses.
pytestmark = [pytest.mark.long, pytest.mark.node, pytest.mark.alone]

SEEN_TIMEOUT = 90.0
SERIES = (
    f'ddpm_operator_reconciles_total{{{OPERATOR}, result="crashed"}}',
    f'ddpm_samplings_ended_total{{{OPERATOR}, reason="WorkerLost"}}',
    f"ddpm_samplings_outlived_by_cluster{{{OPERATOR}}}",
)


@pytest.fixture
def with_metrics(operator: Operator) -> Iterator[Operator]:
    """The release with metrics for all clients. The cluster has no ServiceMonitor CRD."""
    release = replace(operator, values=("metrics.enabled=true",))
    release.install()
    yield release
    operator.install()


def test_prometheus_discovers_the_operator_and_alerts_without_it(with_metrics: Operator, tmp_path: Path) -> None:
    cluster = with_metrics.cluster
    assert cluster.kubeconfig
    with prometheus(tmp_path, monitored(), cluster.kubeconfig) as server:
        up = f"up{{{OPERATOR}}}"
        server.wait(lambda: list(server.values(up).values()) == [1.0], SEEN_TIMEOUT, "the operator to be up")
        assert server.values("up") == server.values(up), "Prometheus discovered more than the operator"
        # The series of the alerts exist from the start, with the labels that the alerts select.
        for series in SERIES:
            assert len(server.values(series)) == 1
        server.wait(lambda: not server.alerts(), SEEN_TIMEOUT, "no alert after discovery")
        with scaled_to_zero(cluster, f"{RELEASE}-operator"):
            server.wait(server.alerts, SEEN_TIMEOUT, "an alert")
            assert server.alerts() == {"DDPMOperatorAbsent": "pending"}
        server.wait(lambda: not server.alerts(), SEEN_TIMEOUT, "no alert after the restart")
