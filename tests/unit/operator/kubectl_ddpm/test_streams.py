"""`kubectl ddpm … | head -1`: commands with an effect go on without their reader, the others end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# The commands with a client that notes what it is asked, and ends the first state of a watch with the second.
PROGRAM = """
import json, sys
from types import SimpleNamespace
from ddpm_operator import kubectl_ddpm
from ddpm_operator.api import DDPMSampling
from ddpm_operator.client import NotFound
from ddpm_operator.kubectl_ddpm import delete, watch
from tests.fakes.recorded_api import sampling

def note(text):
    with open("notes", "a") as file:
        file.write(text + " ")

def deleted(name):
    note(name)
    if name == "missing":
        raise NotFound("it is not there", "")
    return DDPMSampling.model_validate_json(json.dumps(sampling(1, "Running", 4)))

def states(name):
    for number, phase in enumerate(["Pending", "Running", "Succeeded"], 1):
        note(phase)
        yield DDPMSampling.model_validate_json(json.dumps(sampling(number, phase)))

client = SimpleNamespace(delete=deleted, watch=states)
delete.open_client = watch.open_client = lambda options: client
sys.exit(kubectl_ddpm.main())
"""
ROOT = Path(__file__).resolve().parents[4]


def run_without_reader(folder: Path, *arguments: str, stderr_too: bool = False) -> tuple[int, str, list[str]]:
    """Runs a command whose stdout is a pipe without a reader; returns exit code, stderr, and what it did."""
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=writer if stderr_too else subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    os.close(writer)
    return ended.returncode, ended.stderr or "", (folder / "notes").read_text().split()


@pytest.mark.parametrize("options", [["--json"], []])
def test_delete_goes_on_and_returns_its_own_result(options: list[str], tmp_path: Path) -> None:
    assert run_without_reader(tmp_path, "delete", "a", "b", "c", *options) == (0, "", ["a", "b", "c"])


def test_an_error_has_its_exit_code_without_a_reader(tmp_path: Path) -> None:
    code, _, done = run_without_reader(tmp_path, "delete", "a", "missing", "--json", stderr_too=True)
    assert (code, done) == (2, ["a", "missing"])


@pytest.mark.parametrize("options", [["--json"], []])
def test_watch_ends_with_its_reader(options: list[str], tmp_path: Path) -> None:
    code, err, seen = run_without_reader(tmp_path, "watch", "digits", *options)
    assert (code, err) == (0, "")
    assert seen == ["Pending"] if options else "Traceback" not in err


@pytest.mark.parametrize("redirections", [">&- 2>&-", "2>&1 | head -c 1", "> /dev/full"])
def test_closed_streams_do_not_change_the_exit_code(redirections: str, tmp_path: Path) -> None:
    script = f'{{ "$@"; echo $? >code; }} {redirections}'
    command = [sys.executable, "-c", PROGRAM, "delete", "a", "missing", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["bash", "-c", script, "bash", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (tmp_path / "code").read_text() == "2\n"
    assert "Traceback" not in ended.stderr
