"""Fuzzes the readers of foreign bytes: `python -m tests.fuzz [SECONDS] [READER…]`, SECONDS for each in turn.

Guided by coverage (atheris: libFuzzer). Inputs that reached something new stay in build/fuzz/READER for the next
time; one that broke a reader is crash-… there, and `python -m tests.fuzz.engine READER FILE` tries it again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

READERS = ("safetensors", "torch_zip", "job", "stored_manifest", "progress", "fetched_manifest")
ROOT = Path(__file__).resolve().parents[2]
COVERED = re.compile(r"cov: (\d+)")
EXECUTIONS = re.compile(r"number_of_executed_units: +(\d+)")


def fuzzed(reader: str, seconds: int) -> bool:
    """Whether the reader stood it; one line says how much it was."""
    folder = ROOT / "build" / "fuzz" / reader
    command = [sys.executable, "-m", "tests.fuzz.engine", reader, f"-max_total_time={seconds}"]
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
    executions, covered = EXECUTIONS.search(run.stdout), COVERED.findall(run.stdout)
    if run.returncode or not executions or not covered:
        print(
            f"{reader}: {' '.join(run.stdout.splitlines()[-3:])}\n  the whole log is {folder / 'log'}",
            file=sys.stderr,
        )
        return False
    kept = len(list((folder / "corpus").iterdir()))
    print(f"{reader}: {int(executions[1]):,} inputs, coverage {covered[0]} to {covered[-1]}, {kept} kept, all stood")
    return True


def main(arguments: list[str]) -> int:
    seconds, readers = 60, arguments
    if arguments and arguments[0].isdecimal():
        seconds, readers = int(arguments[0]), arguments[1:]
    if unknown := set(readers) - set(READERS):
        print(f"usage: python -m tests.fuzz [SECONDS] [READER…]\nno reader is called {min(unknown)}", file=sys.stderr)
        print(f"readers: {', '.join(READERS)}", file=sys.stderr)
        return 2
    stood = [fuzzed(reader, seconds) for reader in readers or READERS]
    return 0 if all(stood) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
