"""`kubectl ddpm submit` of a sampling that `kubectl apply` created: `samples` grows, other fields conflict."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from ddpm_operator.kubectl_ddpm import main
from tests.fakes.recorded_api import Document, RecordedApi, sampling

KUBECTL = "kubectl-client-side-apply"

Capture = pytest.CaptureFixture[str]
Submit = Callable[..., tuple[int, list[Document]]]


@pytest.fixture
def submit(use_cluster: Callable[[RecordedApi], AbstractContextManager[None]]) -> Submit:
    """Submits `digits`, whose 100 samples kubectl has applied; returns the exit code and the merge patches sent."""

    def submit(*flags: str, samples_manager: str = KUBECTL) -> tuple[int, list[Document]]:
        managers = {"samples": samples_manager, "seed": KUBECTL}
        api = RecordedApi([sampling(2, "Running", 40)], field_managers=managers)
        with use_cluster(api):
            return main(["submit", "digits", "--model_path", "builtin://mnist", *flags]), api.patches

    return submit


def test_more_samples_are_set_by_a_merge_patch(submit: Submit, capsys: Capture) -> None:
    code, patches = submit("--n_samples", "300", "--json")
    assert code == 0
    assert patches == [{"metadata": {"uid": "u"}, "spec": {"samples": 300}}]
    assert json.loads(capsys.readouterr().out)["was"] == "changed"


def test_samples_that_grew_by_a_merge_patch_grow_again(submit: Submit) -> None:
    code, patches = submit("--n_samples", "300", samples_manager="kubectl-ddpm")
    assert (code, len(patches)) == (0, 1)


def test_own_fields_are_not_named_in_a_conflict(submit: Submit, capsys: Capture) -> None:
    code, _ = submit("--n_samples", "300", "--seed", "7", samples_manager="kubectl-ddpm")
    assert code == 2
    assert "error: spec.seed has a different value, set by kubectl-client-side-apply\n" in capsys.readouterr().err


def test_unchanged_samples_need_no_merge_patch(submit: Submit) -> None:
    assert submit("--n_samples", "100") == (0, [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--n_samples", "50"), "spec.samples has a different value, set by kubectl-client-side-apply"),
        (
            ("--n_samples", "300", "--seed", "7"),
            "spec.samples, spec.seed have different values, set by kubectl-client-side-apply",
        ),
    ],
)
def test_a_conflict_names_fields_and_manager(
    flags: tuple[str, ...], message: str, submit: Submit, capsys: Capture
) -> None:
    code, patches = submit(*flags)
    assert (code, patches) == (2, [])
    stderr = capsys.readouterr().err
    assert f"error: {message}\n" in stderr
    assert "`kubectl apply -f` of the changed file" in stderr
    assert "delete" not in stderr
