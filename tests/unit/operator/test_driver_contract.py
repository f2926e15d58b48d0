"""What the driver says of a run is what the operator reads: the two halves know nothing of each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ddpm_inference import stop
from ddpm_inference.cli import main
from ddpm_inference.errors import DdpmError
from ddpm_inference.progress import Phase, Progress
from ddpm_inference.progress_server.run_state import RunState
from ddpm_inference.progress_server.settings import Settings, settings_from
from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.reasons import FailureReason
from ddpm_operator.manifests.render import PROGRESS_PORT, Attempt, ray_cluster, token_secret
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import attempt_tokens
from ddpm_operator.planning.sizing import plan
from ddpm_operator.reconcile.progress_document import FinishedOutcome, last_error, read_progress


def kinds(kind: type[DdpmError] = DdpmError) -> Iterator[type[DdpmError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


def test_every_error_of_a_run_has_a_reason_of_the_closed_list() -> None:
    unknown = {kind.__name__: kind.reason for kind in kinds() if kind.reason not in set(FailureReason)}
    assert unknown == {}


@pytest.mark.parametrize("phase", ["preparing", "sampling"])
def test_the_operator_reads_how_far_a_run_is(phase: Phase) -> None:
    board, progress = RunState(), Progress(phase=phase, message="2 workers")
    progress.begin(100, 40, 2)
    if phase == "sampling":
        progress.plan = {"device": "cpu", "batchSize": 32, "shards": 4}
    board.post(progress.snapshot())
    read = read_progress(json.dumps(board.document()))
    assert (read.phase, read.done, read.total, read.percent, read.message) == (phase, 40, 100, 40.0, "2 workers")
    assert read.outcome is None
    plan = read.plan and (read.plan.device, read.plan.batch_size, read.plan.shards)
    assert plan == (("cpu", 32, 4) if phase == "sampling" else None)


def test_the_operator_reads_what_a_complete_run_made() -> None:
    board = RunState(picture=lambda oldest: bytes(48 * 1024))
    board.end("complete", {"manifestSha256": "a" * 64, "samples": 100, "sampled": 40, "output": "/output"})
    outcome = read_progress(json.dumps(board.document())).outcome
    assert isinstance(outcome, FinishedOutcome)
    assert outcome.model_dump(exclude={"grid"}) == {
        "manifest_sha256": "a" * 64,
        "samples": 100,
        "sampled": 40,
        "output": "/output",
    }
    assert outcome.grid is not None


def test_the_operator_reads_the_same_failure_from_the_board_and_from_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = RunState()
    assert main(["--json", "--model_path", "none.safetensors", "--out_dir", "/nowhere"]) == 2
    told = last_error(capsys.readouterr().out)
    assert told is not None
    assert (told.reason, told.exit_code) == (FailureReason.MODEL_NOT_FOUND, 2)
    board.end(
        "failed",
        {"reason": told.reason, "exitCode": told.exit_code, "message": told.message, "hint": told.hint},
    )
    assert read_progress(json.dumps(board.document())).outcome == told


def attempt_of(sampling: DDPMSampling) -> Attempt:
    return Attempt(
        sampling.metadata,
        1,
        sampling.spec,
        plan(sampling.spec),
        image="worker:1",
        ray_version="2.60.0",
        shared_output=False,
    )


def head_of(attempt: Attempt) -> dict[str, Any]:
    """The spec of the head's pod."""
    spec: dict[str, Any] = ray_cluster(Templates(), attempt, "secret")["spec"]["headGroupSpec"]["template"]["spec"]
    return spec


def test_a_head_that_goes_asks_the_driver_to_end_and_gives_it_the_time(accepted: list[DDPMSampling]) -> None:
    pod = head_of(attempt_of(accepted[0]))
    [head] = pod["containers"]
    interpreter, *command = head["lifecycle"]["preStop"]["exec"]["command"]
    assert (interpreter, command) == ("python", ["-m", stop.__name__])
    assert pod["terminationGracePeriodSeconds"] > stop.WITHIN_SECONDS


def test_the_driver_serves_where_and_to_whom_the_operator_looks(accepted: list[DDPMSampling]) -> None:
    attempt, tokens = attempt_of(accepted[0]), attempt_tokens(b"k" * 32, "uid", 1)
    [head] = head_of(attempt)["containers"]
    secret = token_secret(Templates(), attempt, "cluster-uid", tokens)
    environment = {
        variable["name"]: variable["value"]
        if "value" in variable
        else secret["stringData"][variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in head["env"]
    }
    assert settings_from(environment) == Settings(PROGRESS_PORT, tokens.progress)
