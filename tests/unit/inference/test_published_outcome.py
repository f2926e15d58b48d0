"""The outcome that a run publishes over HTTP before it needs Ray, and how long it waits for a client to read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ddpm_inference.cli import OUTCOME_READ_TIMEOUT
from ddpm_inference.store import Store
from tests.support.progress_client import TOKEN, ProgressClient
from tests.support.rays import check_alive, finish, run_command, start_command, wait_until
from tests.support.storing import an_identity

pytestmark = pytest.mark.slow

REJECTED = ("--model_path", "none.safetensors")

# Prints when it begins to wait for a client, and waits for the seconds of its argument.
WAITING = """
import sys
from threading import Event
from ddpm_inference import cli

cli.OUTCOME_READ_TIMEOUT = float(sys.argv[1])
wait = Event.wait

def announced(event, timeout=None):
    if timeout == cli.OUTCOME_POLL_SECONDS:
        print("waiting", flush=True)
    return wait(event, timeout)

Event.wait = announced
sys.exit(cli.main(["--model_path", "none.safetensors"]))
"""


@pytest.fixture
def client() -> ProgressClient:
    return ProgressClient.at_a_free_port()


def published_outcome(
    client: ProgressClient, *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Returns the exit code of a command, and the last progress document it published."""
    process = start_command(*arguments, cwd=cwd, environment={**client.environment, **(environment or {})})
    document: dict[str, Any] = {}
    wait_until(lambda: document.update(client.progress()) or "outcome" in document, check=lambda: check_alive(process))
    return finish(process, timeout=30).code, document


def start_waiting(seconds: float, client: ProgressClient) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(seconds)],
        env={**os.environ, **client.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process


def test_a_rejection_is_published(client: ProgressClient, tmp_path: Path) -> None:
    code, document = published_outcome(client, *REJECTED, cwd=tmp_path)
    assert code == 2
    assert document["phase"] == "failed"
    assert document["outcome"].keys() == {"reason", "exitCode", "message", "hint"}
    assert (document["outcome"]["reason"], document["outcome"]["exitCode"]) == ("ModelNotFound", 2)
    assert "none.safetensors" in document["outcome"]["message"]


def test_an_invalid_job_is_published(client: ProgressClient, tmp_path: Path) -> None:
    code, document = published_outcome(client, "--json", cwd=tmp_path, environment={"DDPM_JOB": "{}"})
    assert (code, document["outcome"]["reason"], document["outcome"]["exitCode"]) == (2, "InvalidSpec", 2)
    assert "DDPM_JOB" in document["outcome"]["message"]


def test_an_output_conflict_is_published(client: ProgressClient, tmp_path: Path) -> None:
    Store.open(str(tmp_path / "out")).initialize(an_identity(), overwrite=False)
    code, document = published_outcome(client, "--model_path", "builtin://mnist", cwd=tmp_path)
    assert (code, document["phase"], document["outcome"]["reason"]) == (2, "failed", "OutputConflict")
    assert document["outcome"]["hint"]


def test_an_unreachable_ray_is_published_with_exit_code_3(client: ProgressClient, tmp_path: Path) -> None:
    flags = ("--model_path", "builtin://mnist", "--ray_address", "ray://127.0.0.1:1")
    code, document = published_outcome(client, *flags, cwd=tmp_path)
    assert (code, document["outcome"]["reason"], document["outcome"]["exitCode"]) == (3, "Unschedulable", 3)


def test_the_outcome_equals_the_last_json_line(client: ProgressClient, tmp_path: Path) -> None:
    process = start_command(*REJECTED, "--json", cwd=tmp_path, environment=client.environment)
    document: dict[str, Any] = {}
    wait_until(lambda: document.update(client.progress()) or "outcome" in document, check=lambda: check_alive(process))
    last = json.loads(finish(process).out.splitlines()[-1])
    assert last == {"event": "error", **document["outcome"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_and_keeps_the_exit_code(client: ProgressClient, number: signal.Signals) -> None:
    process = start_waiting(100_000.0, client)
    process.send_signal(number)
    ended = finish(process, timeout=60)
    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_the_wait_for_a_client_is_limited(client: ProgressClient) -> None:
    assert finish(start_waiting(0.1, client), timeout=60).code == 2
    assert OUTCOME_READ_TIMEOUT <= 10


def test_without_a_progress_server_there_is_no_wait(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DDPM_")}
    ended = subprocess.run(
        [sys.executable, "-c", WAITING, "100000"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DDPM_PROGRESS_PORT": "http"}, "DDPM_PROGRESS_PORT is 'http', not a port"),
        ({"DDPM_PROGRESS_PORT": "8500"}, "DDPM_PROGRESS_TOKEN is not a token of at least 32 characters"),
        ({"DDPM_PROGRESS_PORT": "8500", "DDPM_PROGRESS_TOKEN": TOKEN[1:]}, "DDPM_PROGRESS_TOKEN is not a token"),
    ],
)
def test_invalid_server_settings_are_a_usage_error(environment: dict[str, str], message: str, tmp_path: Path) -> None:
    ended = run_command(*REJECTED, cwd=tmp_path, environment=environment)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert "hint: " in ended.err


def test_a_dry_run_starts_no_server(client: ProgressClient, tmp_path: Path) -> None:
    flags = ("--model_path", "builtin://mnist", "--dry_run")
    assert run_command(*flags, cwd=tmp_path, environment={"DDPM_PROGRESS_PORT": "no port"}).code == 0
