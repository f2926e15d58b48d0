"""Fuzzes the parsers of untrusted bytes, one after another: `python -m tests.fuzz [SECONDS] [TARGET…]`.

SECONDS is the time for each target. Fuzzing is guided by coverage (atheris, which is libFuzzer). Inputs that reached
new code stay in build/fuzz/TARGET/corpus for the next run. An input that made a target fail is saved as
build/fuzz/TARGET/crash-…; `python -m tests.fuzz.engine TARGET FILE` reproduces it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TARGETS = ("safetensors", "torch_zip", "pipelines", "job", "stored_manifest", "progress", "fetched_manifest")
ROOT = Path(__file__).resolve().parents[2]
COVERAGE = re.compile(r"cov: (\d+)")
EXECUTIONS = re.compile(r"number_of_executed_units: +(\d+)")


def fuzz(target: str, seconds: int) -> bool:
    """Fuzzes one target and prints a line of statistics; returns whether no input made it fail."""
    folder = ROOT / "build" / "fuzz" / target
    command = [sys.executable, "-m", "tests.fuzz.engine", target, f"-max_total_time={seconds}"]
    run = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    (folder / "log").write_text(run.stdout)
    executions, coverage = EXECUTIONS.search(run.stdout), COVERAGE.findall(run.stdout)
    if run.returncode or not executions or not coverage:
        print(
            f"{target}: {' '.join(run.stdout.splitlines()[-3:])}\n  the full log is {folder / 'log'}",
            file=sys.stderr,
        )
        return False
    kept = len(list((folder / "corpus").iterdir()))
    print(
        f"{target}: {int(executions[1]):,} inputs, coverage {coverage[0]} to {coverage[-1]}, corpus {kept}, no failure"
    )
    return True


def main(arguments: list[str]) -> int:
    seconds, targets = 60, arguments
    if arguments and arguments[0].isdecimal():
        seconds, targets = int(arguments[0]), arguments[1:]
    if unknown := set(targets) - set(TARGETS):
        print(f"usage: python -m tests.fuzz [SECONDS] [TARGET…]\nunknown target: {min(unknown)}", file=sys.stderr)
        print(f"targets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    results = [fuzz(target, seconds) for target in targets or TARGETS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
