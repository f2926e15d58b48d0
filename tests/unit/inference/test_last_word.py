"""How a run that never comes to Ray tells its end over HTTP, and how long it waits to be asked."""

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

from ddpm_inference.cli import LINGER_SECONDS
from ddpm_inference.store import Store
from tests.support.asking import TOKEN, Client
from tests.support.rays import alive, end_of, run_command, start_command, wait_until
from tests.support.storing import an_identity

REFUSED = ("--model_path", "none.safetensors")

# Says when it begins to wait for somebody who asks, and waits for so many seconds.
WAITING = """
import sys
from threading import Event
from ddpm_inference import cli

cli.LINGER_SECONDS = float(sys.argv[1])
wait = Event.wait

def told(event, timeout=None):
    if timeout == cli.LOOK_SECONDS:
        print("waiting", flush=True)
    return wait(event, timeout)

Event.wait = told
sys.exit(cli.main(["--model_path", "none.safetensors"]))
"""


@pytest.fixture
def client() -> Client:
    return Client.at_a_free_port()


def last_word(
    client: Client, *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """The exit code of a command, and what it told of its end."""
    process = start_command(*arguments, cwd=cwd, environment={**client.environment, **(environment or {})})
    told: dict[str, Any] = {}
    wait_until(lambda: told.update(client.progress()) or "outcome" in told, meanwhile=lambda: alive(process))
    return end_of(process, within=30).code, told


def waiting(seconds: float, client: Client) -> subprocess.Popen[str]:
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


def test_a_refusal_is_told_before_anything_was_begun(client: Client, tmp_path: Path) -> None:
    code, told = last_word(client, *REFUSED, cwd=tmp_path)
    assert code == 2
    assert told["phase"] == "failed"
    assert told["outcome"].keys() == {"reason", "exitCode", "message", "hint"}
    assert (told["outcome"]["reason"], told["outcome"]["exitCode"]) == ("ModelNotFound", 2)
    assert "none.safetensors" in told["outcome"]["message"]


def test_a_job_that_cannot_be_meant_is_told(client: Client, tmp_path: Path) -> None:
    code, told = last_word(client, "--json", cwd=tmp_path, environment={"DDPM_JOB": "{}"})
    assert (code, told["outcome"]["reason"], told["outcome"]["exitCode"]) == (2, "InvalidSpec", 2)
    assert "DDPM_JOB" in told["outcome"]["message"]


def test_another_job_in_the_output_place_is_told(client: Client, tmp_path: Path) -> None:
    Store.open(str(tmp_path / "out")).claim(an_identity(), overwrite=False)
    code, told = last_word(client, "--model_path", "builtin://mnist", cwd=tmp_path)
    assert (code, told["phase"], told["outcome"]["reason"]) == (2, "failed", "OutputConflict")
    assert told["outcome"]["hint"]


def test_a_ray_that_is_not_there_is_told_with_the_code_of_its_own(client: Client, tmp_path: Path) -> None:
    flags = ("--model_path", "builtin://mnist", "--ray_address", "ray://127.0.0.1:1")
    code, told = last_word(client, *flags, cwd=tmp_path)
    assert (code, told["outcome"]["reason"], told["outcome"]["exitCode"]) == (3, "Unschedulable", 3)


def test_what_it_is_told_is_what_the_log_says(client: Client, tmp_path: Path) -> None:
    process = start_command(*REFUSED, "--json", cwd=tmp_path, environment=client.environment)
    told: dict[str, Any] = {}
    wait_until(lambda: told.update(client.progress()) or "outcome" in told, meanwhile=lambda: alive(process))
    last = json.loads(end_of(process).out.splitlines()[-1])
    assert last == {"event": "error", **told["outcome"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cuts_the_waiting_short_and_the_exit_code_stays(client: Client, number: signal.Signals) -> None:
    process = waiting(100_000.0, client)
    process.send_signal(number)
    ended = end_of(process, within=60)
    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_nobody_is_waited_for_for_ever(client: Client) -> None:
    assert end_of(waiting(0.1, client), within=60).code == 2
    assert LINGER_SECONDS <= 10


def test_without_the_variables_nobody_is_waited_for(tmp_path: Path) -> None:
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
    ("environment", "said"),
    [
        ({"DDPM_PROGRESS_PORT": "http"}, "DDPM_PROGRESS_PORT is 'http', which is no port"),
        ({"DDPM_PROGRESS_PORT": "8500"}, "DDPM_PROGRESS_TOKEN is not a token of at least 32 characters"),
        ({"DDPM_PROGRESS_PORT": "8500", "DDPM_PROGRESS_TOKEN": TOKEN[1:]}, "DDPM_PROGRESS_TOKEN is not a token"),
    ],
)
def test_what_cannot_be_served_is_a_usage_error(environment: dict[str, str], said: str, tmp_path: Path) -> None:
    ended = run_command(*REFUSED, cwd=tmp_path, environment=environment)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert "hint: " in ended.err


def test_a_dry_run_serves_nothing(client: Client, tmp_path: Path) -> None:
    flags = ("--model_path", "builtin://mnist", "--dry_run")
    assert run_command(*flags, cwd=tmp_path, environment={"DDPM_PROGRESS_PORT": "no port"}).code == 0
