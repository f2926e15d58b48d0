"""The contract between the driver and the operator, which share no code: each reads what the other writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ddpm_inference import cli, stop
from ddpm_inference.cli import main
from ddpm_inference.errors import DdpmError, OtherHardware
from ddpm_inference.job import Hardware
from ddpm_inference.progress import Phase, Progress
from ddpm_inference.progress_server.run_state import RunState
from ddpm_inference.progress_server.settings import Settings, settings_from
from ddpm_inference.progress_server.thumbnail import MAX_PNG_BYTES
from ddpm_operator.api import DDPMSampling
from ddpm_operator.api.reasons import FailureReason
from ddpm_operator.manifests.render import PROGRESS_PORT, Attempt, ray_cluster, token_secret
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import attempt_tokens
from ddpm_operator.planning.sizing import plan
from ddpm_operator.reconcile.preview import MAX_PREVIEW_BYTES
from ddpm_operator.reconcile.progress_document import FailedOutcome, FinishedOutcome, last_error, read_progress


def error_types(base: type[DdpmError] = DdpmError) -> Iterator[type[DdpmError]]:
    yield base
    for subclass in base.__subclasses__():
        yield from error_types(subclass)


def test_every_driver_error_has_a_known_failure_reason() -> None:
    unknown = {it.__name__: it.reason for it in error_types() if it.reason not in set(FailureReason)}
    assert unknown == {}


@pytest.mark.parametrize("phase", ["preparing", "sampling"])
def test_progress_is_read(phase: Phase) -> None:
    run_state, progress = RunState(), Progress(phase=phase, message="2 workers")
    progress.begin(100, 40, 2)
    if phase == "sampling":
        progress.plan = {"device": "cpu", "batchSize": 32, "shards": 4}
    run_state.publish(progress.snapshot())
    read = read_progress(json.dumps(run_state.document()))
    assert (read.phase, read.done, read.total, read.percent, read.message) == (phase, 40, 100, 40.0, "2 workers")
    assert read.outcome is None
    plan = read.plan and (read.plan.device, read.plan.batch_size, read.plan.shards)
    assert plan == (("cpu", 32, 4) if phase == "sampling" else None)


def test_a_finished_outcome_is_read() -> None:
    run_state = RunState(thumbnail=lambda oldest: bytes(MAX_PREVIEW_BYTES))
    run_state.end("complete", {"manifestSha256": "a" * 64, "samples": 100, "sampled": 40, "output": "/output"})
    outcome = read_progress(json.dumps(run_state.document())).outcome
    assert isinstance(outcome, FinishedOutcome)
    assert outcome.model_dump(exclude={"grid"}) == {
        "manifest_sha256": "a" * 64,
        "samples": 100,
        "sampled": 40,
        "output": "/output",
    }
    assert outcome.grid is not None


def test_progress_and_log_report_the_same_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_state = RunState()
    assert main(["--json", "--model_path", "none.safetensors", "--out_dir", "/nowhere"]) == 2
    error = last_error(capsys.readouterr().out)
    assert error is not None
    assert (error.reason, error.exit_code) == (FailureReason.MODEL_NOT_FOUND, 2)
    run_state.end(
        "failed",
        {"reason": error.reason, "exitCode": error.exit_code, "message": error.message, "hint": error.hint},
    )
    assert read_progress(json.dumps(run_state.document())).outcome == error


def test_nodes_with_other_hardware_are_read_from_progress_and_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OtherHardware("a worker has aten AVX2", other_hardware_ips=["10.0.0.7", "10.0.0.8"])

    monkeypatch.setattr(cli, "_sample", refuse)
    assert main(["--json"]) == 3
    error = last_error(capsys.readouterr().out)
    assert error
    assert error.other_hardware_ips == ("10.0.0.7", "10.0.0.8")
    run_state, progress = RunState(), Progress(phase="sampling")
    progress.plan = {"device": "cpu", "batchSize": 32, "shards": 4, "hardware": Hardware(aten="AVX512").model_dump()}
    progress.node_ready("10.0.0.6")
    progress.node_with_other_hardware("10.0.0.7")
    run_state.publish(progress.snapshot())
    read = read_progress(json.dumps(run_state.document()))
    assert read.plan
    assert read.plan.hardware == {"aten": "AVX512"}
    assert (read.node_ips.ready, read.node_ips.other_hardware) == (("10.0.0.6",), ("10.0.0.7",))
    run_state.end("failed", cli._failure(OtherHardware("it differs", other_hardware_ips=["10.0.0.7"])))
    outcome = read_progress(json.dumps(run_state.document())).outcome
    assert isinstance(outcome, FailedOutcome)
    assert outcome.other_hardware_ips == ("10.0.0.7",)


def test_preview_size_limits_agree() -> None:
    assert MAX_PNG_BYTES == MAX_PREVIEW_BYTES


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


def head_pod_spec(attempt: Attempt) -> dict[str, Any]:
    """Returns the spec of the head pod."""
    spec: dict[str, Any] = ray_cluster(Templates(), attempt, "secret")["spec"]["headGroupSpec"]["template"]["spec"]
    return spec


def test_the_grace_period_is_longer_than_the_pre_stop_hook(accepted: list[DDPMSampling]) -> None:
    pod = head_pod_spec(attempt_of(accepted[0]))
    [head] = pod["containers"]
    interpreter, *command = head["lifecycle"]["preStop"]["exec"]["command"]
    assert (interpreter, command) == ("python", ["-P", "-m", stop.__name__])
    assert pod["terminationGracePeriodSeconds"] > stop.WAIT_SECONDS


def test_progress_port_and_token_agree(accepted: list[DDPMSampling]) -> None:
    attempt, tokens = attempt_of(accepted[0]), attempt_tokens(b"k" * 32, "uid", 1)
    [head] = head_pod_spec(attempt)["containers"]
    secret = token_secret(Templates(), attempt, "cluster-uid", tokens)
    environment = {
        variable["name"]: variable["value"]
        if "value" in variable
        else secret["stringData"][variable["valueFrom"]["secretKeyRef"]["key"]]
        for variable in head["env"]
    }
    assert settings_from(environment) == Settings(PROGRESS_PORT, tokens.progress)
