"""The operator's metrics: they count outcomes, contain no names, and are not reachable by default."""

from __future__ import annotations

import secrets

import pytest

from ddpm_operator.controller.metrics import PORT
from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod
from tests.cluster.metrics import metrics_text, series, total
from tests.cluster.operator_release import SELECTOR, Operator
from tests.cluster.samplings import LIGHT, Sampling

pytestmark = pytest.mark.draws_nothing
CONNECT = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 5).close()
        print(port)
    except OSError:
        pass
"""


def test_metrics_count_outcomes_without_names(namespace: Namespace, operator: Operator) -> None:
    before = series(metrics_text(operator))
    name = f"planted-{secrets.token_hex(4)}"
    Sampling.apply(namespace, name, LIGHT | {"podOverrides": {"serviceAccountName": "default"}}).wait_for("Failed")
    Sampling.apply(namespace, f"{name}-2", LIGHT | {"suspend": True}).wait_for("Suspended")
    text = metrics_text(operator)
    after = series(text)

    ended = total(after, "ddpm_samplings_ended_total", reason="InvalidSpec")
    assert ended >= total(before, "ddpm_samplings_ended_total", reason="InvalidSpec") + 1
    assert total(after, "ddpm_samplings", phase="Failed") >= 1
    assert total(after, "ddpm_samplings", phase="Suspended") >= 1
    for count in ("ddpm_operator_reconciles_total", "ddpm_operator_api_requests_total"):
        assert total(after, count) > total(before, count)
    assert total(after, "ddpm_operator_reconciles_total", result="crashed") == 0
    assert "planted" not in text
    assert namespace.name not in text


def test_metrics_are_not_reachable_by_default(namespace: Namespace, operator: Operator, worker_image: str) -> None:
    """Even if the network enforces no policies: only the port of the probe is open."""
    (operator_pod,) = operator.namespace.list("v1", "Pod", SELECTOR)
    connect = ["python", "-c", CONNECT, operator_pod["status"]["podIP"], "8080", str(PORT)]
    assert namespace.run_pod(pod("stranger", worker_image, connect), 60).split() == ["8080"]
