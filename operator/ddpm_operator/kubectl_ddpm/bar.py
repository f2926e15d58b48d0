"""A bar on a terminal, nothing in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ddpm_operator.client import Told


@contextmanager
def bar(before: str, then: str) -> Iterator[Told]:
    """Shows how far bytes are that come or go.

    Args:
        before: what is done as long as nothing was told.
        then: what the bytes are.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(before, total=None)
        yield lambda come, of: progress.update(task, description=then, completed=come, total=of)
