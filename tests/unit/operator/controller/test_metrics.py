"""What Prometheus is told: what has happened, once each, and nothing that a user has written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from ddpm_operator.api import Condition, ConditionType, Failure, FailureReason, Phase, Status
from ddpm_operator.controller.metrics import PORT, Metrics, Result
from ddpm_operator.kube.objects import ObjectKey, Sampling

NOW = datetime(2026, 11, 23, 22, 0, tzinfo=UTC)
A, B = ObjectKey("research", "a", "uid-a"), ObjectKey("research", "b", "uid-b")


def metrics_of(*owners: ObjectKey) -> Metrics:
    return Metrics(lambda: owners)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def seen(key: ObjectKey, **status: Any) -> Sampling:  # noqa: ANN401 - as JSON has it
    metadata = {"namespace": key.namespace, "name": key.name, "uid": key.uid, "resourceVersion": "1"}
    document = {"metadata": metadata | {"creationTimestamp": "2026-11-23T22:00:00Z"}, "spec": {}}
    return Sampling.model_validate(document | ({"status": status} if status else {}))


def status(*held: ConditionType, reason: FailureReason | None = None, **fields: int) -> Status:
    conditions = [Condition(type=it, status="True", reason="So", last_transition_time=NOW) for it in held]
    failure = Failure(reason=reason, message="It went wrong.") if reason else None
    return Status(conditions=tuple(conditions), failure=failure, **fields)


def test_samplings_are_counted_by_their_phase_until_they_are_gone() -> None:
    metrics = metrics_of()
    metrics.census.saw(seen(A))
    metrics.census.saw(seen(B, phase="Running"))
    assert value(metrics, "ddpm_samplings", phase="Pending") == 1
    assert value(metrics, "ddpm_samplings", phase="Running") == 1
    metrics.census.saw(seen(A, phase="Running"))
    metrics.census.gone(B)
    assert value(metrics, "ddpm_samplings", phase="Pending") == 0
    assert value(metrics, "ddpm_samplings", phase="Running") == 1


def test_a_phase_that_nobody_knows_makes_no_label_of_its_own() -> None:
    metrics = metrics_of()
    metrics.census.saw(seen(A, phase="Dreaming"))
    assert value(metrics, "ddpm_samplings", phase="Pending") == 1
    assert value(metrics, "ddpm_samplings", phase="Dreaming") is None


def test_an_attempt_and_its_failure_are_counted_once() -> None:
    metrics = metrics_of()
    first, lost = status(attempt=1), status(attempt=1, failed_attempts=1, reason=FailureReason.HEAD_LOST)
    metrics.wrote(None, first)
    metrics.wrote(first, lost)
    metrics.wrote(lost, lost)
    metrics.wrote(lost, status(attempt=2, failed_attempts=1))
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
def test_an_end_is_counted_once_by_its_reason(end: Status, reason: str) -> None:
    metrics = metrics_of()
    assert value(metrics, "ddpm_samplings_ended_total", reason=reason) == 0
    metrics.wrote(status(attempt=1), end)
    metrics.wrote(end, end)
    assert value(metrics, "ddpm_samplings_ended_total", reason=reason) == 1


def test_a_look_that_goes_wrong_is_counted_as_the_operators_own_error() -> None:
    metrics = metrics_of()
    with pytest.raises(ZeroDivisionError), metrics.look():
        raise ZeroDivisionError
    with metrics.look():
        metrics.looked(Result.DONE)
    assert value(metrics, "ddpm_operator_reconciles_total", result="crashed") == 1
    assert value(metrics, "ddpm_operator_reconciles_total", result="done") == 1
    assert value(metrics, "ddpm_operator_reconcile_seconds_count") == 2


@pytest.mark.parametrize(
    ("kept", "outlived"),
    [
        ({"phase": "Running"}, 0),
        ({"phase": "Succeeded"}, 1),
        ({"phase": "Failed", "conditions": [{"type": "CleanedUp", "status": "False", "reason": "Kept"}]}, 0),
        ({"phase": "Failed", "conditions": [{"type": "CleanedUp", "status": "False", "reason": "Deleting"}]}, 1),
        (None, 1),
    ],
    ids=["runs", "ended", "kept", "no longer kept", "gone"],
)
def test_a_cluster_that_outlives_its_sampling_is_counted(kept: dict[str, Any] | None, outlived: int) -> None:
    metrics = metrics_of(A)
    metrics.census.saw(seen(A, phase="Running"))
    if kept is None:
        metrics.census.gone(A)
    else:
        metrics.census.saw(seen(A, **kept))
    assert value(metrics, "ddpm_samplings_outlived_by_cluster") == outlived


def test_the_time_in_the_queue_is_told_when_it_is_over() -> None:
    metrics = metrics_of()
    for phase in (Phase.PENDING, Phase.QUEUED, Phase.QUEUED):
        metrics.census.saw(seen(A, phase=phase.value))
    assert value(metrics, "ddpm_sampling_queued_seconds_count") == 0
    metrics.census.saw(seen(A, phase=Phase.STARTING.value))
    assert value(metrics, "ddpm_sampling_queued_seconds_count") == 1


def test_nothing_but_the_metrics_is_served_and_nothing_of_a_user_is_in_them() -> None:
    metrics = metrics_of(A)
    metrics.census.saw(seen(ObjectKey("planted-namespace", "planted-name", "planted-uid"), phase="planted-phase"))
    metrics.requested("GET", 200)

    async def ask(path: str, method: str = "GET") -> tuple[int, str]:
        address = f"http://127.0.0.1:{PORT}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, address) as answer:
            return answer.status, await answer.text()

    async def test() -> None:
        async with metrics.served("127.0.0.1"):
            status, text = await ask("/metrics")
            assert status == 200
            assert 'ddpm_operator_api_requests_total{method="GET",status="200"} 1.0' in text
            assert "planted" not in text
            assert [(await ask(path))[0] for path in ("/", "/healthz", "/metrics/x")] == [404, 404, 404]
            assert (await ask("/metrics", "POST"))[0] == 405

    asyncio.run(test())
