"""What a person sees of a sampling, from an API server that tells a recorded story; and the exit codes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from ddpm_operator.api import DDPMSampling
from ddpm_operator.kubectl_ddpm import main
from ddpm_operator.kubectl_ddpm.views import details, table
from ddpm_operator.kubectl_ddpm.watch import picture
from tests.fakes.recorded_api import Document, RecordedApi, sampling

DEFAULT = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
NOW = datetime(2026, 11, 23, 16, 2, 5, tzinfo=UTC)
FAILURE = {"reason": "OutOfMemory", "message": "The driver was killed.", "hint": "Give the head more memory."}
GOOD = [
    sampling(1),
    sampling(2, "Pending"),
    sampling(3, "Running", 4),
    sampling(4, "Running", 7),
    sampling(5, "Running", 55),
    sampling(6, "Succeeded", 100),
    sampling(7, "Running", 1),
]
BAD = [sampling(1, "Running", 40), sampling(2, "Failed", 40, failure=FAILURE)]

Capture = pytest.CaptureFixture[str]


Refusal = tuple[int, str]
Tell = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tell:
    """For the time of the block, the cluster of this process is one that tells a story."""

    @contextmanager
    def tell(states: list[Document], refusal: Refusal | None = None) -> Iterator[None]:
        with RecordedApi(states, refusal).kubeconfig(tmp_path) as kubeconfig:
            monkeypatch.setattr(DEFAULT, str(kubeconfig))
            yield

    return tell


def test_watch_ends_with_the_sampling_and_says_each_thing_once(tell: Tell, capsys: Capture) -> None:
    with tell(GOOD):
        assert main(["watch", "digits"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "-  0 of 100 samples (0 %)  No operator has looked at it yet.",
        "Pending  0 of 100 samples (0 %)",
        "Running  4 of 100 samples (4 %)  It is Running.",
        "Running  55 of 100 samples (55 %)  It is Running.",
        "Succeeded  100 of 100 samples (100 %)  It is Succeeded.",
    ]


def test_watch_of_a_failure_exits_with_4_and_says_why_and_what_to_do(tell: Tell, capsys: Capture) -> None:
    with tell(BAD):
        assert main(["watch", "digits"]) == 4
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "Failed  40 of 100 samples (40 %)  OutOfMemory: The driver was killed."
    assert said.err == "error: The driver was killed.\n  Give the head more memory.\n"


def condition(type: str, status: str, reason: str, message: str) -> Document:
    since = "2026-11-23T16:00:00Z"
    return {"type": type, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


@pytest.mark.parametrize(
    ("accepted", "ready", "said"),
    [
        ("True", ("Unschedulable", "The head pod fits no node."), "The head pod fits no node."),
        ("True", ("NotBegun", "There has been no attempt yet."), "By 2 workers."),
        ("False", ("NotBegun", "There has been no attempt yet."), "By 2 workers."),
    ],
)
def test_what_has_not_begun_says_what_it_waits_for(
    accepted: str, ready: tuple[str, str], said: str, tell: Tell, capsys: Capture
) -> None:
    conditions = [
        condition("Accepted", accepted, "It", "By 2 workers."),
        condition("ClusterReady", "False", *ready),
    ]
    with tell([sampling(1, "Starting", conditions=conditions), *BAD]):
        assert main(["watch", "digits"]) == 4
    assert capsys.readouterr().out.splitlines()[0] == f"Starting  0 of 100 samples (0 %)  {said}"


def test_watch_as_json_is_a_document_a_change(tell: Tell, capsys: Capture) -> None:
    with tell(BAD):
        assert main(["watch", "digits", "--json"]) == 4
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["name"], one["phase"], one["progress"]["done"]) for one in said] == [
        ("digits", "Running", 40),
        ("digits", "Failed", 40),
    ]


@pytest.mark.parametrize(
    ("status", "message", "code", "says"),
    [
        (404, 'ddpmsamplings "digits" not found', 2, "there is no DDPMSampling digits in the namespace research"),
        (404, "the server could not find the requested resource", 2, "the cluster knows no DDPMSamplings"),
        (403, "no right", 3, "no right\n  ask the administrator"),
        (401, "Unauthorized", 3, "Unauthorized\n  ask the administrator"),
        (500, "etcd is away", 3, "the API server failed: etcd is away\n  look at `kubectl cluster-info`"),
        (422, "spec is wrong", 2, "spec is wrong\n  correct what it names"),
    ],
)
def test_an_answer_that_is_none_has_an_exit_code_and_a_hint(
    status: int,
    message: str,
    code: int,
    says: str,
    tell: Tell,
    capsys: Capture,
) -> None:
    with tell([sampling(1)], (status, message)):
        assert main(["status", "digits"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {says}")


def test_a_cluster_that_does_not_answer_is_3(
    tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    with tell(GOOD):
        pass
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("error: the API server does not answer: ")
    monkeypatch.setattr(DEFAULT, str(tmp_path / "no"))
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("error: no cluster is known: ")


def test_what_is_not_complete_or_has_failed_is_not_fetched(tell: Tell, tmp_path: Path, capsys: Capture) -> None:
    for states, code, says in ((GOOD[3:4], 2, "digits is not complete yet"), (BAD[1:], 4, "digits has failed")):
        with tell(states):
            assert main(["fetch", "digits", str(tmp_path / "there")]) == code
        assert capsys.readouterr().err.startswith(f"error: {says}\n  ")
    assert not (tmp_path / "there").exists()


def test_logs_after_the_end_are_what_the_status_keeps(tell: Tell, capsys: Capture) -> None:
    end = sampling(2, "Failed", 40, failure={**FAILURE, "logTail": "step 5\nKilled"})
    with tell([end]):
        assert main(["logs", "digits"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == ["step 5", "Killed", "OutOfMemory: The driver was killed."]
    assert said.err == "no driver of digits has run; this is what the status keeps\n"


@pytest.mark.parametrize("terminal", [True, False], ids=["a terminal", "a file"])
def test_a_terminal_gets_of_a_log_what_can_be_seen_and_a_file_all(
    tell: Tell, capsys: Capture, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    end = sampling(2, "Failed", 40, failure={**FAILURE, "logTail": "\x1b[31mstep 5\x1b[0m\x07"})
    with tell([end]):
        assert main(["logs", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ("step 5" if terminal else "\x1b[31mstep 5\x1b[0m\x07")


def shown(what: RenderableType, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(what)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_shows_three_lines_however_narrow(width: int) -> None:
    state = sampling(1, "Running", 50)
    state["status"]["progress"] |= {"samplesPerSecond": "33.3", "eta": "1m05s"}
    state["status"]["conditions"][0]["message"] = "Ray at 10.0.0.1:6379; device cpu; 8 shards to sample." * 3
    name, figures, words = shown(picture(DDPMSampling.from_document(state)), width)
    assert re.match(r"digits  Running  [━╸╺ ]+$", name)
    assert figures.startswith("50 of 100 samples (50 %), 33.3 a second")
    assert words.startswith("Ray at 10.0.0.1:6379")
    assert max(len(name), len(figures), len(words)) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_a_list_is_a_line_a_sampling(width: int) -> None:
    states = [DDPMSampling.from_document(state) for state in (GOOD[0], GOOD[4], BAD[1])]
    lines = [line.split() for line in shown(table(states, NOW, namespaces=True), width)]
    assert lines == [
        ["NAMESPACE", "NAME", "PHASE", "DONE", "TOTAL", "ETA", "AGE"],
        ["research", "digits", "-", "0", "100", "2m05s"],
        ["research", "digits", "Running", "55", "100", "2m05s"],
        ["research", "digits", "Failed", "40", "100", "2m05s"],
    ]


def test_the_status_of_a_failure_says_what_to_do() -> None:
    said = shown(details(DDPMSampling.from_document(BAD[1]), NOW), 80)
    assert said[0] == "digits  Failed  2m05s old"
    assert "  failed with  OutOfMemory: The driver was killed." in said
    assert "  to do        Give the head more memory." in said
