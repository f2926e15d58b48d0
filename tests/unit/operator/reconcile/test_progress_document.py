"""The operator parses what the driver of this repository really reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ddpm_inference.cli import main
from ddpm_inference.job import Shard
from ddpm_inference.progress import Progress
from ddpm_inference.progress_server.run_state import RunState
from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.progress_document import FailedOutcome, FinishedOutcome, last_error, read_progress


def answer(state: RunState) -> str:
    return json.dumps(state.document())


def test_running_driver_is_parsed() -> None:
    state, progress = RunState(), Progress(phase="sampling")
    progress.begin(total=100, done=36, shards_left=1)
    progress.observe(0.0, {Shard(first=36, last=99): 0.0}, workers=1, busy=1)
    progress.observe(10.0, {Shard(first=36, last=99): 0.5}, workers=1, busy=1)
    state.publish(progress.snapshot())
    document = read_progress(answer(state))
    assert (document.phase, document.done, document.total) == ("sampling", 36, 100)
    assert document.samples_per_second
    assert document.eta_seconds
    assert document.outcome is None


def test_starting_driver_is_parsed() -> None:
    assert read_progress(answer(RunState())).total == 0


def test_completed_driver_is_parsed_with_its_preview() -> None:
    state = RunState(thumbnail=lambda _: b"png")
    state.end("complete", {"manifestSha256": "ab" * 32, "samples": 100, "sampled": 64, "output": "/output"})
    outcome = read_progress(answer(state)).outcome
    assert outcome == FinishedOutcome(manifest_sha256="ab" * 32, samples=100, sampled=64, output="/output", grid="cG5n")


def test_failed_driver_is_parsed() -> None:
    state = RunState()
    failure = {"reason": "OutOfMemory", "exitCode": 4, "message": "a worker died", "hint": "more"}
    state.end("failed", failure)  # type: ignore[arg-type]
    outcome = read_progress(answer(state)).outcome
    assert outcome == FailedOutcome(reason="OutOfMemory", exit_code=4, message="a worker died", hint="more")


def test_unknown_fields_are_ignored() -> None:
    document = json.loads(answer(RunState())) | {"temperature": 21}
    assert read_progress(json.dumps(document)).phase == "preparing"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "[]",
        '{"version": 2}',
        json.dumps({**json.loads(json.dumps(RunState().document())), "done": -1}),
    ],
)
def test_invalid_document_is_rejected(text: str) -> None:
    with pytest.raises(ValidationError):
        read_progress(text)


def test_error_event_of_the_command_is_parsed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["--json", "--model_path", str(tmp_path / "nothing.safetensors"), "--out_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    error = last_error(f"Ray says: failed\n{printed}\n(raylet) goodbye")
    assert error
    assert error.exit_code == code == 2
    assert FailureReason(error.reason) == FailureReason.MODEL_NOT_FOUND  # type: ignore[call-arg]
    assert "nothing.safetensors" in error.message


@pytest.mark.parametrize("field", ["done", "total", "samplesPerSecond", "etaSeconds"])
@pytest.mark.parametrize("figure", ["1e300", "Infinity", "NaN", "9" * 400, "1000000000001"])
def test_too_large_figure_is_rejected(field: str, figure: str) -> None:
    document = json.loads(answer(RunState())) | {field: 0}
    assert read_progress(json.dumps(document)).total == 0
    with pytest.raises(ValidationError):
        read_progress(json.dumps(document).replace(f'"{field}": 0', f'"{field}": {figure}'))


@pytest.mark.parametrize(
    "log",
    [
        '{"a":' * 4000,
        f'{{"event": "error", "exitCode": {"1" * 5000}}}',
        "",
        "{",
        '{"event": "error"}',
        '{"event": "progress"}',
        "[1]",
        '{"a": 1}\nend',
    ],
)
def test_log_without_error_event_gives_none(log: str) -> None:
    assert last_error(log) is None


@pytest.mark.parametrize(
    "hardware",
    [{"a" * 400: "x"}, {"aten": "x" * 200}, {str(number): "x" for number in range(17)}, {"aten": 1}],
    ids=["long name", "long value", "many fields", "no text"],
)
def test_hardware_that_a_status_cannot_hold_is_rejected(hardware: dict[str, object]) -> None:
    plan = {"device": "cpu", "batchSize": 32, "shards": 4}
    figures = {"done": 0, "total": 1, "percent": 0.0, "samplesPerSecond": None, "etaSeconds": None}
    document = {"version": 1, "phase": "sampling", **figures, "plan": plan | {"hardware": {"aten": "AVX512"}}}
    read = read_progress(json.dumps(document))
    assert read.plan
    assert read.plan.hardware == {"aten": "AVX512"}
    with pytest.raises(ValidationError):
        read_progress(json.dumps(document | {"plan": plan | {"hardware": hardware}}))
