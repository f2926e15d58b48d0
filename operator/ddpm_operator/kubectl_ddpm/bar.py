"""A bar on a terminal, nothing in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ddpm_operator.client import ProgressCallback


class _Figures(ProgressColumn):
    """``1.0 MB of 5.2 MB, 2.1 MB/s``; nothing before the first byte."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text()
        speed = f", {decimal(int(task.speed))}/s" if task.speed else ""
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total))}{speed}")


@contextmanager
def bar(before: str, then: str) -> Iterator[ProgressCallback]:
    """Shows how far bytes are that come or go.

    Args:
        before: what is done as long as nothing was told.
        then: what the bytes are.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _Figures())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(before, total=None)
        yield lambda come, of: progress.update(task, description=then, completed=come, total=of)
