"""An interactive shell for tests that follow the documentation."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_DONE = "this-line-is-done"


class Shell:
    """A bash that exits at the first failed command and then kills its background jobs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._output: list[str] = []
        self.run("set -euo pipefail", "trap 'kill $(jobs -p)' EXIT")

    def run(self, *lines: str) -> None:
        """Runs commands and waits for their end.

        Raises:
            AssertionError: if one fails; contains their output.
        """
        assert self._process.stdin
        self._output.clear()
        self._process.stdin.write("".join(f"{line}\n" for line in (*lines, f"echo {_DONE}")))
        self._process.stdin.flush()
        self.wait_for_output(_DONE)

    def wait_for_output(self, text: str) -> None:
        """Waits until the last commands, or their background jobs, have printed a text.

        Raises:
            AssertionError: if the shell exits first; contains the output.
        """
        assert self._process.stdout
        while not any(text in line for line in self._output):
            line = self._process.stdout.readline()
            assert line, "the shell has exited:\n" + "".join(self._output)
            self._output.append(line)


@contextmanager
def shell(folder: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    """Runs a shell in a folder during the block."""
    with subprocess.Popen(
        ["bash"],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield Shell(process)
        finally:
            assert process.stdin
            process.stdin.close()
