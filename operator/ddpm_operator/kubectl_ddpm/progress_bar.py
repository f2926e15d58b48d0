"""A progress bar for uploads and downloads. It appears on a terminal only, never in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from ddpm_operator.client import ProgressCallback


class _TransferColumn(ProgressColumn):
    """``1.0 MB of 5.2 MB, 2.1 MB/s``; empty before the first byte."""

    def render(self, task: Task) -> Text:
        if not task.total:
            return Text()
        speed = f", {decimal(int(task.speed))}/s" if task.speed else ""
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total))}{speed}")


@contextmanager
def progress_bar(preparing: str, transferring: str) -> Iterator[ProgressCallback]:
    """Shows the progress of a transfer in bytes.

    Args:
        preparing: the label before the first byte.
        transferring: the label afterwards.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), _TransferColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(preparing, total=None)
        yield lambda done, total: progress.update(task, description=transferring, completed=done, total=total)
