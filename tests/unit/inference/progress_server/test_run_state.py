"""The progress document of a run, and when its outcome is published."""

from __future__ import annotations

import pytest

from ddpm_inference.console import QuietView
from ddpm_inference.progress import END_PHASES, EndPhase, Progress
from ddpm_inference.progress_server.run_state import Complete, Failure, RunState, RunStateView

COMPLETE = Complete(manifestSha256="0" * 64, samples=100, sampled=40, output="/out")


@pytest.mark.parametrize("phase", END_PHASES)
def test_an_end_phase_is_withheld_until_its_outcome(phase: EndPhase) -> None:
    run_state, progress = RunState(), Progress(phase="writing")
    progress.begin(100, 90, 1)
    view = RunStateView(QuietView(), progress, run_state)
    view.show_progress(progress)
    progress.begin(100, 100, 0)
    progress.phase = phase
    view.show_progress(progress)
    document = run_state.document()
    assert (document["phase"], document["done"]) == ("writing", 90)
    assert not run_state.ended

    run_state.end(phase, COMPLETE)
    assert run_state.ended
    document = run_state.document()
    assert (document["phase"], document["done"]) == (phase, 100)
    assert "outcome" in document


def test_a_run_may_end_before_its_first_progress() -> None:
    run_state, failure = RunState(), Failure(reason="ModelNotFound", exitCode=2, message="none", hint="")
    run_state.end("failed", failure)
    assert run_state.document() == {**Progress().snapshot(), "phase": "failed", "outcome": failure}


@pytest.mark.parametrize(("png", "grid"), [(None, None), (b"\x89PNG", "iVBORw==")])
def test_the_outcome_of_a_complete_run_has_a_fresh_grid(png: bytes | None, grid: str | None) -> None:
    run_state = RunState(thumbnail=lambda max_age: png if max_age == 0 else b"old")
    run_state.end("complete", COMPLETE)
    assert run_state.document()["outcome"] == {
        "manifestSha256": "0" * 64,
        "samples": 100,
        "sampled": 40,
        "output": "/out",
        "grid": grid,
    }


def test_a_message_is_published_at_once() -> None:
    run_state, progress = RunState(), Progress()
    RunStateView(QuietView(), progress, run_state).show_message("the cluster has room for 1 of 2 workers")
    assert run_state.document()["message"] == "the cluster has room for 1 of 2 workers"
