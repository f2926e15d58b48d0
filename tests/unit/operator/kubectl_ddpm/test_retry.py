"""`kubectl ddpm retry`: restarts failed samplings by a higher backoffLimit, and repairs by a higher repair."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from ddpm_operator.kubectl_ddpm import main
from tests.fakes.recorded_api import Document, RecordedApi, sampling

Capture = pytest.CaptureFixture[str]
Retry = Callable[..., tuple[int, list[Document]]]


@pytest.fixture
def retry(use_cluster: Callable[[RecordedApi], AbstractContextManager[None]]) -> Retry:
    """Retries `digits`; returns the exit code and the merge patches sent."""

    def retry(state: Document, *options: str) -> tuple[int, list[Document]]:
        api = RecordedApi([state])
        with use_cluster(api):
            return main(["retry", "digits", *options]), api.patches

    return retry


def failed(limit: int, attempts: int, limit_at_failure: int | None = None) -> Document:
    """Returns a failed sampling whose backoffLimit is now `limit`."""
    failure = {
        "reason": "WorkerLost",
        "message": "A worker died.",
        "hint": "Retry.",
        "backoffLimit": limit_at_failure or limit,
    }
    state = sampling(2, "Failed", 40, failure=failure, failedAttempts=attempts)
    state["spec"]["backoffLimit"] = limit
    return state


def test_a_failed_sampling_is_retried(retry: Retry, capsys: Capture) -> None:
    code, patches = retry(failed(limit=3, attempts=4))
    assert code == 0
    assert patches == [{"metadata": {"uid": "u"}, "spec": {"backoffLimit": 5}}]
    assert capsys.readouterr().out == (
        "digits retried with 40 of 100 samples done; follow it with `kubectl ddpm watch digits -n research`\n"
    )


@pytest.mark.parametrize(
    ("limit", "attempts", "limit_at_failure", "new_limit"),
    [(0, 0, None, 1), (3, 1, None, 4), (3, 4, None, 5), (1, 2, 5, 6)],
    ids=["rejected before the first attempt", "not retryable", "all attempts used", "limit lowered since"],
)
def test_the_limit_exceeds_all_previous_limits_and_attempts(
    limit: int, attempts: int, limit_at_failure: int | None, new_limit: int, retry: Retry, capsys: Capture
) -> None:
    code, patches = retry(failed(limit, attempts, limit_at_failure), "--json")
    assert (code, patches[0]["spec"]) == (0, {"backoffLimit": new_limit})
    assert json.loads(capsys.readouterr().out) == {"name": "digits", "namespace": "research", "backoffLimit": new_limit}


def test_a_spec_fixed_just_now_is_retried(retry: Retry) -> None:
    state = failed(limit=3, attempts=1)
    state["metadata"]["generation"] += 1
    assert retry(state) == (0, [{"metadata": {"uid": "u"}, "spec": {"backoffLimit": 4}}])


def test_a_complete_sampling_is_repaired(retry: Retry, capsys: Capture) -> None:
    state = sampling(3, "Succeeded", 100, repaired=2)
    assert retry(state, "--repair") == (0, [{"metadata": {"uid": "u"}, "spec": {"repair": 3}}])
    assert capsys.readouterr().out == (
        "digits is checked and repaired; follow it with `kubectl ddpm watch digits -n research`\n"
    )
    state["spec"]["repair"] = 7
    assert retry(state, "--repair", "--json")[1][0]["spec"] == {"repair": 8}
    assert json.loads(capsys.readouterr().out) == {
        "name": "digits",
        "namespace": "research",
        "backoffLimit": 3,
        "repair": 8,
    }


def test_a_failed_sampling_is_retried_and_repaired(retry: Retry) -> None:
    _, patches = retry(failed(limit=3, attempts=4), "--repair")
    assert patches[0]["spec"] == {"backoffLimit": 5, "repair": 1}


def test_a_running_sampling_is_not_repaired(retry: Retry, capsys: Capture) -> None:
    assert retry(sampling(2, "Running", 40), "--repair") == (2, [])
    assert capsys.readouterr().err.startswith("error: digits has not ended: it is Running. It is Running.\n  ")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (sampling(1), "digits has not failed: it is new. The operator has not reconciled it yet."),
        (sampling(2, "Running", 40), "digits has not failed: it is Running. It is Running."),
        (sampling(3, "Succeeded", 100), "digits has not failed: it is Succeeded. It is Succeeded."),
        (failed(limit=100, attempts=1), "digits cannot be retried: its backoffLimit is already 100, the maximum"),
    ],
    ids=["new", "running", "complete", "maximum limit"],
)
def test_other_samplings_are_not_retried(state: Document, message: str, retry: Retry, capsys: Capture) -> None:
    code, patches = retry(state)
    assert (code, patches) == (2, [])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}\n  ")
