"""Runs the scripts of hack/node as a user does, with a temporary cache folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NODE = Path(__file__).parents[3] / "hack/node"

LIBRARIES = ("say", "settings", "programs", "packages", "preflight", "cgroup", "node", "pki", "images")

Completed = subprocess.CompletedProcess[str]
Run = Callable[..., Completed]
PathWith = Callable[[str, str], str]


def execute(*command: str | Path, **environment: str) -> Completed:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def run(cache: Path) -> Run:
    """run("up", *arguments, **environment): runs a script; returns its output and exit code."""

    def run(script: str, *arguments: str, **environment: str) -> Completed:
        return execute(NODE / script, *arguments, **({"XDG_CACHE_HOME": str(cache)} | environment))

    return run


@pytest.fixture
def run_part(cache: Path) -> Run:
    """run_part("need_disk", **environment): the same for bash code with all libraries sourced."""

    def run_part(step: str, **environment: str) -> Completed:
        sources = " ".join(f"source {NODE}/lib/{library}.sh;" for library in LIBRARIES)
        return execute(
            "bash", "-c", f"set -euo pipefail; {sources} {step}", **({"XDG_CACHE_HOME": str(cache)} | environment)
        )

    return run_part


@pytest.fixture
def path_with(tmp_path: Path) -> PathWith:
    """path_with(name, script): returns a PATH on which the program `name` is this shell script."""

    def path_with(name: str, script: str) -> str:
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f"{program.parent}:{os.environ['PATH']}"

    return path_with
