"""What is told of a run, and that an end is told with its outcome or not at all."""

from __future__ import annotations

import pytest

from ddpm_inference.console import Quiet
from ddpm_inference.progress import ENDS, End, Progress
from ddpm_inference.progress_server.run_state import Complete, RunState, RunStateView

COMPLETE = Complete(manifestSha256="0" * 64, samples=100, sampled=40, output="/out")


@pytest.mark.parametrize("phase", ENDS)
def test_an_end_is_not_told_before_its_outcome(phase: End) -> None:
    board, progress = RunState(), Progress(phase="writing")
    progress.begin(100, 90, 1)
    view = RunStateView(Quiet(), progress, board)
    view.show(progress)
    progress.begin(100, 100, 0)
    progress.phase = phase
    view.show(progress)
    document = board.document()
    assert (document["phase"], document["done"]) == ("writing", 90)
    assert not board.ended

    board.end(phase, COMPLETE)
    assert board.ended
    document = board.document()
    assert (document["phase"], document["done"]) == (phase, 100)
    assert "outcome" in document


def test_an_end_before_anything_was_shown_is_told() -> None:
    board = RunState()
    board.end("failed", {"reason": "ModelNotFound", "exitCode": 2, "message": "none", "hint": ""})
    assert board.document() == {
        **Progress().snapshot(),
        "phase": "failed",
        "outcome": {"reason": "ModelNotFound", "exitCode": 2, "message": "none", "hint": ""},
    }


@pytest.mark.parametrize(("png", "grid"), [(None, None), (b"\x89PNG", "iVBORw==")])
def test_all_that_is_known_of_a_complete_run(png: bytes | None, grid: str | None) -> None:
    # Of no age at all: the picture of the outcome has every sample there is.
    board = RunState(picture=lambda oldest: png if oldest == 0 else b"old")
    board.end("complete", COMPLETE)
    assert board.document()["outcome"] == {
        "manifestSha256": "0" * 64,
        "samples": 100,
        "sampled": 40,
        "output": "/out",
        "grid": grid,
    }


def test_what_is_said_is_the_message_at_once() -> None:
    board, progress = RunState(), Progress()
    RunStateView(Quiet(), progress, board).say("the cluster has room for 1 of 2 workers")
    assert board.document()["message"] == "the cluster has room for 1 of 2 workers"
