"""The scripts of hack/node, run as a person runs them, with a cache folder of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

NODE = Path(__file__).parents[3] / "hack/node"

PARTS = ("say", "settings", "programs", "packages", "preflight", "cgroup", "node", "pki", "images")

Said = subprocess.CompletedProcess[str]
Run = Callable[..., Said]
PathWith = Callable[[str, str], str]


def execute(*command: str | Path, **environment: str) -> Said:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def run(cache: Path) -> Run:
    """run("up", *arguments, **environment): what the script said and how it ended."""

    def run(script: str, *arguments: str, **environment: str) -> Said:
        return execute(NODE / script, *arguments, **({"XDG_CACHE_HOME": str(cache)} | environment))

    return run


@pytest.fixture
def run_part(cache: Path) -> Run:
    """run_part("need_disk", **environment): the same for one step of a script."""

    def run_part(step: str, **environment: str) -> Said:
        parts = " ".join(f"source {NODE}/lib/{part}.sh;" for part in PARTS)
        return execute(
            "bash", "-c", f"set -euo pipefail; {parts} {step}", **({"XDG_CACHE_HOME": str(cache)} | environment)
        )

    return run_part


@pytest.fixture
def path_with(tmp_path: Path) -> PathWith:
    """path_with(name, script): a PATH on which the program `name` is this shell script."""

    def path_with(name: str, script: str) -> str:
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f"{program.parent}:{os.environ['PATH']}"

    return path_with
