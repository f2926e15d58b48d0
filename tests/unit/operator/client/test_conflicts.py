"""`kubectl ddpm submit` of what `kubectl apply` has created: it grows, and anything else says whose it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddpm_operator.kubectl_ddpm import main
from tests.fakes.recorded_api import Document, RecordedApi, sampling

DEFAULT = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
KUBECTL = "kubectl-client-side-apply"

Capture = pytest.CaptureFixture[str]


def submit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, samples: str = KUBECTL
) -> tuple[int, list[Document]]:
    """Of 100 digits that kubectl has applied.

    Args:
        samples: who has set their number.
    """
    api = RecordedApi([sampling(2, "Running", 40)], owners={"samples": samples, "seed": KUBECTL})
    with api.kubeconfig(folder) as kubeconfig:
        monkeypatch.setattr(DEFAULT, str(kubeconfig))
        return main(["submit", "digits", "--model_path", "builtin://mnist", *flags]), api.patches


def test_more_samples_are_asked_for_by_a_patch_of_their_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, patches = submit(tmp_path, monkeypatch, "--n_samples", "300", "--json")
    assert code == 0
    assert patches == [{"metadata": {"uid": "u"}, "spec": {"samples": 300}}]
    assert json.loads(capsys.readouterr().out)["was"] == "changed"


def test_what_has_grown_by_such_a_patch_grows_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, patches = submit(tmp_path, monkeypatch, "--n_samples", "300", samples="kubectl-ddpm")
    assert (code, len(patches)) == (0, 1)


def test_what_this_command_has_set_itself_is_not_told_as_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, _ = submit(tmp_path, monkeypatch, "--n_samples", "300", "--seed", "7", samples="kubectl-ddpm")
    assert code == 2
    assert "error: spec.seed has another value there, set by kubectl-client-side-apply\n" in capsys.readouterr().err


def test_as_many_samples_as_there_are_need_no_patch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submit(tmp_path, monkeypatch, "--n_samples", "100") == (0, [])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--n_samples", "50"), "spec.samples has another value there, set by kubectl-client-side-apply"),
        (
            ("--n_samples", "300", "--seed", "7"),
            "spec.samples, spec.seed have other values there, set by kubectl-client-side-apply",
        ),
    ],
)
def test_whatever_else_another_manager_has_set_is_left_to_it_and_it_is_named(
    flags: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    code, patches = submit(tmp_path, monkeypatch, *flags)
    assert (code, patches) == (2, [])
    said = capsys.readouterr().err
    assert f"error: {says}\n" in said
    assert "`kubectl apply -f` of the changed file" in said
    assert "delete" not in said
