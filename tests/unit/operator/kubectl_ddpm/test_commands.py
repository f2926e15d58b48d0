"""Output and exit codes of watch, status, list, logs, fetch and verify, against a recorded API server."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from ddpm_operator.api import DDPMSampling
from ddpm_operator.client import DamagedFile, ProgressCallback, Verified
from ddpm_operator.kubectl_ddpm import main, verify
from ddpm_operator.kubectl_ddpm.views import sampling_details, samplings_table
from ddpm_operator.kubectl_ddpm.watch import live_view
from tests.fakes.recorded_api import Document, RecordedApi, sampling

NOW = datetime(2026, 11, 23, 16, 2, 5, tzinfo=UTC)
FAILURE = {"reason": "OutOfMemory", "message": "The driver was killed.", "hint": "Give the head more memory."}
SUCCEEDING = [
    sampling(1),
    sampling(2, "Pending"),
    sampling(3, "Running", 4),
    sampling(4, "Running", 7),
    sampling(5, "Running", 55),
    sampling(6, "Succeeded", 100),
    sampling(7, "Running", 1),
]
FAILING = [sampling(1, "Running", 40), sampling(2, "Failed", 40, failure=FAILURE)]

Capture = pytest.CaptureFixture[str]
Cluster = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def cluster(use_cluster: Callable[[RecordedApi], AbstractContextManager[None]]) -> Cluster:
    """For the duration of the block, the cluster plays back these states, or returns an error."""

    def use(states: list[Document], error: tuple[int, str] | None = None) -> AbstractContextManager[None]:
        return use_cluster(RecordedApi(states, error))

    return use


def test_watch_ends_with_the_sampling_and_skips_repeats(cluster: Cluster, capsys: Capture) -> None:
    with cluster(SUCCEEDING):
        assert main(["watch", "digits"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "-  0 of 100 samples (0 %)  The operator has not reconciled it yet.",
        "Pending  0 of 100 samples (0 %)",
        "Running  4 of 100 samples (4 %)  It is Running.",
        "Running  55 of 100 samples (55 %)  It is Running.",
        "Succeeded  100 of 100 samples (100 %)  It is Succeeded.",
    ]


def test_watch_of_a_failure_exits_with_4_and_a_hint(cluster: Cluster, capsys: Capture) -> None:
    with cluster(FAILING):
        assert main(["watch", "digits"]) == 4
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "Failed  40 of 100 samples (40 %)  OutOfMemory: The driver was killed."
    assert captured.err == "error: The driver was killed.\n  Give the head more memory.\n"


def condition(type: str, status: str, reason: str, message: str) -> Document:
    time = "2026-11-23T16:00:00Z"
    return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": time}


@pytest.mark.parametrize(
    ("accepted", "ready", "message"),
    [
        ("True", ("Unschedulable", "The head pod fits no node."), "The head pod fits no node."),
        ("True", ("NotBegun", "There has been no attempt yet."), "By 2 workers."),
        ("False", ("NotBegun", "There has been no attempt yet."), "By 2 workers."),
    ],
)
def test_watch_shows_what_a_sampling_waits_for(
    accepted: str, ready: tuple[str, str], message: str, cluster: Cluster, capsys: Capture
) -> None:
    conditions = [
        condition("Accepted", accepted, "It", "By 2 workers."),
        condition("ClusterReady", "False", *ready),
    ]
    with cluster([sampling(1, "Starting", conditions=conditions), *FAILING]):
        assert main(["watch", "digits"]) == 4
    assert capsys.readouterr().out.splitlines()[0] == f"Starting  0 of 100 samples (0 %)  {message}"


def test_watch_prints_a_json_document_per_change(cluster: Cluster, capsys: Capture) -> None:
    with cluster(FAILING):
        assert main(["watch", "digits", "--json"]) == 4
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(it["name"], it["phase"], it["progress"]["done"]) for it in documents] == [
        ("digits", "Running", 40),
        ("digits", "Failed", 40),
    ]


@pytest.mark.parametrize(
    ("status", "message", "code", "stderr"),
    [
        (404, 'ddpmsamplings "digits" not found', 2, "there is no DDPMSampling digits in the namespace research"),
        (404, "the server could not find the requested resource", 2, "the cluster has no DDPMSampling CRD"),
        (403, "no right", 3, "no right\n  ask the administrator"),
        (401, "Unauthorized", 3, "Unauthorized\n  ask the administrator"),
        (500, "etcd is away", 3, "the API server failed: etcd is away\n  check `kubectl cluster-info`"),
        (422, "spec is wrong", 2, "spec is wrong\n  fix what the message names"),
    ],
)
def test_an_error_response_has_an_exit_code_and_a_hint(
    status: int, message: str, code: int, stderr: str, cluster: Cluster, capsys: Capture
) -> None:
    with cluster([sampling(1)], (status, message)):
        assert main(["status", "digits"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {stderr}")


def test_an_unreachable_cluster_exits_with_3(
    cluster: Cluster, default_kubeconfig: Callable[[Path], None], tmp_path: Path, capsys: Capture
) -> None:
    with cluster(SUCCEEDING):
        pass
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("error: cannot reach the API server: ")
    default_kubeconfig(tmp_path / "no")
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("error: cannot load the kubeconfig: ")


def test_fetch_needs_a_complete_sampling(cluster: Cluster, tmp_path: Path, capsys: Capture) -> None:
    for states, code, message in (
        (SUCCEEDING[3:4], 2, "digits is not complete yet"),
        (FAILING[1:], 4, "digits has failed"),
    ):
        with cluster(states):
            assert main(["fetch", "digits", str(tmp_path / "there")]) == code
        assert capsys.readouterr().err.startswith(f"error: {message}\n  ")
    assert not (tmp_path / "there").exists()


def test_verify_needs_a_complete_sampling(cluster: Cluster, capsys: Capture) -> None:
    for states, code, message in (
        (SUCCEEDING[3:4], 2, "digits is not complete yet"),
        (FAILING[1:], 4, "digits has failed"),
    ):
        with cluster(states):
            assert main(["verify", "digits"]) == code
        assert capsys.readouterr().err.startswith(f"error: {message}\n  ")


@pytest.mark.parametrize("as_json", [True, False])
def test_verify_exits_with_4_if_a_file_is_damaged(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    whole = Verified("0" * 64, 100, 6, ())
    damaged = whole._replace(damaged=(DamagedFile("samples.npy", "is missing"),))
    for result, code, text in (
        (whole, 0, "100 samples, 6 files, each with the sha256 of the manifest"),
        (damaged, 4, "samples.npy is missing"),
    ):
        monkeypatch.setattr(verify, "open_client", lambda options, result=result: FakeVerifier(result))
        assert main(["verify", "digits", *(["--json"] if as_json else [])]) == code
        captured = capsys.readouterr()
        if as_json:
            document = json.loads(captured.out)
            assert document["whole"] == (code == 0)
            assert [it["file"] for it in document["problems"]] == [it.name for it in result.damaged]
        else:
            assert captured.out == f"{text}\n"
        assert ("is not whole" in captured.err) == (code == 4)
        assert ("`kubectl ddpm retry digits --repair`" in captured.err) == (code == 4)


@dataclass(frozen=True)
class FakeVerifier:
    """A client with the result of one verification."""

    result: Verified

    def verify(self, name: str, on_progress: ProgressCallback) -> Verified:
        assert name == "digits"
        return self.result


def test_logs_fall_back_to_the_log_tail_of_the_status(cluster: Cluster, capsys: Capture) -> None:
    failed = sampling(2, "Failed", 40, failure={**FAILURE, "logTail": "step 5\nKilled"})
    with cluster([failed]):
        assert main(["logs", "digits"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["step 5", "Killed", "OutOfMemory: The driver was killed."]
    assert captured.err == "no driver has run for digits; showing the log tail from the status\n"


@pytest.mark.parametrize("terminal", [True, False], ids=["a terminal", "a file"])
def test_logs_remove_control_characters_on_a_terminal_only(
    cluster: Cluster, capsys: Capture, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    failed = sampling(2, "Failed", 40, failure={**FAILURE, "logTail": "\x1b[31mstep 5\x1b[0m\x07"})
    with cluster([failed]):
        assert main(["logs", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ("step 5" if terminal else "\x1b[31mstep 5\x1b[0m\x07")


def rendered(view: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(view)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_live_view_has_three_lines_at_any_width(width: int) -> None:
    state = sampling(1, "Running", 50)
    state["status"]["progress"] |= {"samplesPerSecond": "33.3", "eta": "1m05s"}
    state["status"]["conditions"][0]["message"] = "Ray at 10.0.0.1:6379; device cpu; 8 shards to sample." * 3
    name, progress, message = rendered(live_view(DDPMSampling.from_document(state)), width)
    assert re.match(r"digits  Running  [━╸╺ ]+$", name)
    assert progress.startswith("50 of 100 samples (50 %), 33.3/s")
    assert message.startswith("Ray at 10.0.0.1:6379")
    assert max(len(name), len(progress), len(message)) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_list_prints_a_row_per_sampling(width: int) -> None:
    states = [DDPMSampling.from_document(state) for state in (SUCCEEDING[0], SUCCEEDING[4], FAILING[1])]
    lines = [line.split() for line in rendered(samplings_table(states, NOW, with_namespace=True), width)]
    assert lines == [
        ["NAMESPACE", "NAME", "PHASE", "DONE", "TOTAL", "ETA", "AGE"],
        ["research", "digits", "-", "0", "100", "2m05s"],
        ["research", "digits", "Running", "55", "100", "2m05s"],
        ["research", "digits", "Failed", "40", "100", "2m05s"],
    ]


def test_status_of_a_failure_shows_what_to_do() -> None:
    lines = rendered(sampling_details(DDPMSampling.from_document(FAILING[1]), NOW), 80)
    assert lines[0] == "digits  Failed  2m05s old"
    assert "  failure     OutOfMemory: The driver was killed." in lines
    assert "  what to do  Give the head more memory." in lines
