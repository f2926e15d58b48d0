"""The operator's metrics in its own cluster: what has happened is counted, whose it was stays untold."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import yaml

from ddpm_operator.metrics import PORT
from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod
from tests.cluster.metrics import metrics_text, series, total
from tests.cluster.operator_release import SELECTOR, Operator
from tests.cluster.samplings import LIGHT, Sampling

DEADLINE = 60
KNOCKS = """
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 5).close()
        print(port)
    except OSError:
        pass
"""


def test_what_becomes_of_a_sampling_is_counted_and_not_whose_it_is(
    namespace: Namespace, operator: Operator
) -> None:
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


def test_no_pod_reads_the_metrics_unless_the_chart_is_asked_for_them(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    """Also where the network enforces no policy. Its probe is all that the operator answers."""
    (of_operator,) = operator.namespace.list("v1", "Pod", SELECTOR)
    knocks = ["python", "-c", KNOCKS, of_operator["status"]["podIP"], "8080", str(PORT)]
    assert namespace.run_pod(pod("stranger", worker_image, knocks), 60).split() == ["8080"]


@pytest.fixture
def webhook_away(namespace: Namespace, operator: Operator) -> Iterator[None]:
    """Whatever asks for a RayCluster in the test's namespace is sent to a webhook that is not there."""
    rule = {"apiGroups": ["ray.io"], "apiVersions": ["*"], "resources": ["rayclusters"], "operations": ["CREATE"]}
    webhook = {
        "name": "away.ddpm-ray.test",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "clientConfig": {"url": "https://127.0.0.1:9/away"},
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    given = yaml.safe_dump({**kind, "metadata": {"name": namespace.name}, "webhooks": [webhook]})
    operator.kubectl_says("apply", "-f", "-", given=given)
    yield
    operator.kubectl_says("delete", "-f", "-", given=given)


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.usefixtures("webhook_away")
def test_a_sampling_that_is_always_refused_makes_no_storm(namespace: Namespace, operator: Operator) -> None:
    """Counted by the API server itself, and by the operator, over the minute that the sampling has."""

    def asked() -> tuple[float, float, float]:
        of_server = series(operator.kubectl_says("get", "--raw", "/metrics"))
        of_operator = series(metrics_text(operator))
        return (
            total(of_server, "apiserver_request_total", resource="rayclusters", verb="POST"),
            total(of_operator, "ddpm_operator_api_requests_total"),
            total(of_operator, "ddpm_operator_reconciles_total", result="refused"),
        )

    before = asked()
    sampling = Sampling.apply(namespace, "digits", LIGHT | {"backoffLimit": 0, "startupDeadlineSeconds": DEADLINE})
    failed = sampling.wait_for("Failed", DEADLINE + 120)
    assert failed["status"]["failure"]["reason"] == "PodRejected"
    created, requests, refused = (after - old for after, old in zip(asked(), before, strict=True))
    assert 3 <= refused <= created <= 12
    assert requests <= 100
