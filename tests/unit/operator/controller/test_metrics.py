"""The exported metrics: each event is counted once, and no label has a value from users."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from ddpm_operator.api import Condition, ConditionType, Failure, FailureReason, Phase, Status
from ddpm_operator.controller.metrics import PORT, Metrics, ReconcileResult
from ddpm_operator.kube.objects import ObjectKey, Sampling

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
A, B = ObjectKey("research", "a", "uid-a"), ObjectKey("research", "b", "uid-b")


def metrics_of(*owners: ObjectKey) -> Metrics:
    return Metrics(lambda: owners)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def sampling(key: ObjectKey, **status: Any) -> Sampling:  # noqa: ANN401 - as JSON has it
    metadata = {"namespace": key.namespace, "name": key.name, "uid": key.uid, "resourceVersion": "1"}
    document = {"metadata": metadata | {"creationTimestamp": "2026-11-23T22:00:00Z"}, "spec": {}}
    return Sampling.model_validate(document | ({"status": status} if status else {}))


def status(*true_conditions: ConditionType, reason: FailureReason | None = None, **fields: int) -> Status:
    conditions = [Condition(type=it, status="True", reason="Test", last_transition_time=NOW) for it in true_conditions]
    failure = Failure(reason=reason, message="The test failed.") if reason else None
    return Status(conditions=tuple(conditions), failure=failure, **fields)


def test_samplings_are_counted_by_phase_until_removed() -> None:
    metrics = metrics_of()
    metrics.samplings.update(sampling(A))
    metrics.samplings.update(sampling(B, phase="Running"))
    assert value(metrics, "ddpm_samplings", phase="Pending") == 1
    assert value(metrics, "ddpm_samplings", phase="Running") == 1
    metrics.samplings.update(sampling(A, phase="Running"))
    metrics.samplings.remove(B)
    assert value(metrics, "ddpm_samplings", phase="Pending") == 0
    assert value(metrics, "ddpm_samplings", phase="Running") == 1


def test_an_unknown_phase_counts_as_pending() -> None:
    metrics = metrics_of()
    metrics.samplings.update(sampling(A, phase="Unknown"))
    assert value(metrics, "ddpm_samplings", phase="Pending") == 1
    assert value(metrics, "ddpm_samplings", phase="Unknown") is None


def test_attempts_and_their_failures_are_counted_once() -> None:
    metrics = metrics_of()
    started, failed = status(attempt=1), status(attempt=1, failed_attempts=1, reason=FailureReason.HEAD_LOST)
    metrics.count_transitions(None, started)
    metrics.count_transitions(started, failed)
    metrics.count_transitions(failed, failed)
    metrics.count_transitions(failed, status(attempt=2, failed_attempts=1))
    assert value(metrics, "ddpm_attempts_total") == 2
    assert value(metrics, "ddpm_attempts_failed_total", reason="HeadLost") == 1
    assert value(metrics, "ddpm_samplings_ended_total", reason="HeadLost") == 0


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (status(ConditionType.COMPLETE), "Complete"),
        (status(ConditionType.FAILED, reason=FailureReason.INVALID_SPEC), "InvalidSpec"),
    ],
    ids=["complete", "failed"],
)
def test_an_ended_sampling_is_counted_once_by_reason(end: Status, reason: str) -> None:
    metrics = metrics_of()
    assert value(metrics, "ddpm_samplings_ended_total", reason=reason) == 0
    metrics.count_transitions(status(attempt=1), end)
    metrics.count_transitions(end, end)
    assert value(metrics, "ddpm_samplings_ended_total", reason=reason) == 1


def test_an_exception_is_counted_as_a_crash() -> None:
    metrics = metrics_of()
    with pytest.raises(ZeroDivisionError), metrics.time_reconcile():
        raise ZeroDivisionError
    with metrics.time_reconcile():
        metrics.count_reconcile(ReconcileResult.DONE)
    assert value(metrics, "ddpm_operator_reconciles_total", result="crashed") == 1
    assert value(metrics, "ddpm_operator_reconciles_total", result="done") == 1
    assert value(metrics, "ddpm_operator_reconcile_seconds_count") == 2


@pytest.mark.parametrize(
    ("fields", "outlived"),
    [
        ({"phase": "Running"}, 0),
        ({"phase": "Succeeded"}, 1),
        ({"phase": "Failed", "conditions": [{"type": "CleanedUp", "status": "False", "reason": "Kept"}]}, 0),
        ({"phase": "Failed", "conditions": [{"type": "CleanedUp", "status": "False", "reason": "Deleting"}]}, 1),
        (None, 1),
    ],
    ids=["running", "ended", "kept", "being deleted", "deleted"],
)
def test_outlived_samplings_are_counted(fields: dict[str, Any] | None, outlived: int) -> None:
    metrics = metrics_of(A)
    metrics.samplings.update(sampling(A, phase="Running"))
    if fields is None:
        metrics.samplings.remove(A)
    else:
        metrics.samplings.update(sampling(A, **fields))
    assert value(metrics, "ddpm_samplings_outlived_by_cluster") == outlived


def test_queued_time_is_observed_when_it_ends() -> None:
    metrics = metrics_of()
    for phase in (Phase.PENDING, Phase.QUEUED, Phase.QUEUED):
        metrics.samplings.update(sampling(A, phase=phase.value))
    assert value(metrics, "ddpm_sampling_queued_seconds_count") == 0
    metrics.samplings.update(sampling(A, phase=Phase.STARTING.value))
    assert value(metrics, "ddpm_sampling_queued_seconds_count") == 1


def test_serves_only_metrics_without_users_values() -> None:
    metrics = metrics_of(A)
    metrics.samplings.update(
        sampling(ObjectKey("planted-namespace", "planted-name", "planted-uid"), phase="planted-phase")
    )
    metrics.count_api_request("GET", 200)

    async def request(path: str, method: str = "GET") -> tuple[int, str]:
        address = f"http://127.0.0.1:{PORT}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, address) as response:
            return response.status, await response.text()

    async def test() -> None:
        async with metrics.serve("127.0.0.1"):
            status, text = await request("/metrics")
            assert status == 200
            assert 'ddpm_operator_api_requests_total{method="GET",status="200"} 1.0' in text
            assert "planted" not in text
            assert [(await request(path))[0] for path in ("/", "/healthz", "/metrics/x")] == [404, 404, 404]
            assert (await request("/metrics", "POST"))[0] == 405

    asyncio.run(test())
