"""`kubectl ddpm retry`: what has failed goes on; nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpm_operator.kubectl_ddpm import main
from tests.fakes.recorded_api import Document, RecordedApi, sampling

DEFAULT = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"

Capture = pytest.CaptureFixture[str]


def failed(limit: int, attempts: int, then: int | None = None) -> Document:
    """With `limit` now, and `then` when it failed."""
    failure = {
        "reason": "WorkerLost",
        "message": "A worker died.",
        "hint": "Retry.",
        "backoffLimit": then or limit,
    }
    found = sampling(2, "Failed", 40, failure=failure, failedAttempts=attempts)
    found["spec"]["backoffLimit"] = limit
    return found


def retry(state: Document, folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> tuple[int, list[Document]]:
    api = RecordedApi([state])
    with api.kubeconfig(folder) as kubeconfig:
        monkeypatch.setattr(DEFAULT, str(kubeconfig))
        return main(["retry", "digits", *more]), api.patches


def test_it_goes_on_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    code, patches = retry(failed(limit=3, attempts=4), tmp_path, monkeypatch)
    assert code == 0
    assert patches == [{"metadata": {"uid": "u"}, "spec": {"backoffLimit": 5}}]
    said = capsys.readouterr().out
    assert said == ("digits goes on with 40 of 100 samples; follow it with `kubectl ddpm watch digits -n research`\n")


@pytest.mark.parametrize(
    ("limit", "attempts", "then", "new"),
    [(0, 0, None, 1), (3, 1, None, 4), (3, 4, None, 5), (1, 2, 5, 6)],
    ids=["rejected at once", "of no use to try again", "tried often enough", "lowered since"],
)
def test_the_limit_is_higher_than_when_it_failed_and_than_what_it_has_used(
    limit: int,
    attempts: int,
    then: int | None,
    new: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    code, patches = retry(failed(limit, attempts, then), tmp_path, monkeypatch, "--json")
    assert (code, patches[0]["spec"]) == (0, {"backoffLimit": new})
    assert json.loads(capsys.readouterr().out) == {"name": "digits", "namespace": "research", "backoffLimit": new}


def test_a_spec_that_was_mended_just_now_is_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen = failed(limit=3, attempts=1)
    unseen["metadata"]["generation"] += 1
    assert retry(unseen, tmp_path, monkeypatch) == (0, [{"metadata": {"uid": "u"}, "spec": {"backoffLimit": 4}}])


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (sampling(1), "digits has not failed: it is new. No operator has looked at it yet."),
        (sampling(2, "Running", 40), "digits has not failed: it is Running. It is Running."),
        (sampling(3, "Succeeded", 100), "digits has not failed: it is Succeeded. It is Succeeded."),
        (
            failed(limit=100, attempts=1),
            "digits cannot be tried again: its backoffLimit is 100 already, of at most 100",
        ),
    ],
    ids=["new", "running", "complete", "at the highest"],
)
def test_what_has_not_failed_is_refused(
    state: Document, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, patches = retry(state, tmp_path, monkeypatch)
    assert (code, patches) == (2, [])
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {says}\n  ")
