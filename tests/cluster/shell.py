"""A shell that tests type into, as a person who follows the documents does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_DONE = "this-line-is-done"


class Shell:
    """A bash that ends at the first command that fails, and what is left in its background with it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said: list[str] = []
        self.types("set -euo pipefail", "trap 'kill $(jobs -p)' EXIT")

    def types(self, *lines: str) -> None:
        """Waits until the commands are done.

        Raises:
            AssertionError: if one fails, with what all have said.
        """
        assert self._process.stdin
        self._said.clear()
        self._process.stdin.write("".join(f"{line}\n" for line in (*lines, f"echo {_DONE}")))
        self._process.stdin.flush()
        self.until(_DONE)

    def until(self, word: str) -> None:
        """Waits until the last commands, or what they have left in the background, have said a word.

        Raises:
            AssertionError: if the shell ends before, with what they have said.
        """
        assert self._process.stdout
        while not any(word in line for line in self._said):
            line = self._process.stdout.readline()
            assert line, "the shell has ended:\n" + "".join(self._said)
            self._said.append(line)


@contextmanager
def shell(folder: Path, environment: Mapping[str, str]) -> Iterator[Shell]:
    """A shell in a folder, for the time of the block."""
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
