"""`kubectl ddpm watch`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client.conditions import has_ended, holds, status_message
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, client_of, print_json
from ddpm_operator.kubectl_ddpm.views import phase, progress_of, progress_words

_BAR = 40


def add_to(commands: Commands) -> None:
    command = add_command(commands, "watch", _watch, "follow a sampling to its end")
    command.add_argument("name", metavar="NAME")


def _watch(options: argparse.Namespace) -> int:
    """Follows a sampling until it is complete (exit code 0) or has failed (4)."""
    seen = _to_the_end(client_of(options).watch(options.name))
    if options.json:
        last = _as_json(seen)
    else:
        console = Console(highlight=False, soft_wrap=True)
        last = _live(seen, console) if console.is_terminal else _as_lines(seen, console)
    if not holds(last, ConditionType.FAILED):
        return 0
    failure = last.status.failure if last.status else None
    if failure and not options.json:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"error: {failure.message}\n  {failure.hint}", markup=False
        )
    return 4


def line(before: DDPMSampling | None, now: DDPMSampling) -> str | None:
    """What a log says of a change: a new phase, attempt or sentence, and every tenth of the way; else nothing."""
    if before is not None and _mark(before) == _mark(now):
        return None
    words = status_message(now)
    return f"{phase(now)}  {progress_words(progress_of(now))}{f'  {words}' if words else ''}"


def picture(sampling: DDPMSampling) -> RenderableType:
    """What a terminal shows, in three lines, however narrow it is."""
    progress = progress_of(sampling)
    name = Text.assemble((sampling.metadata.name, "bold"), "  ", phase(sampling))
    first = Table.grid(padding=(0, 2))
    first.add_column(no_wrap=True)
    first.add_row(name, ProgressBar(total=max(progress.total, 1), completed=progress.done, width=_BAR))
    below = (Text(progress_words(progress)), Text(status_message(sampling), "dim"))
    for line in below:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(first, *below)


def _mark(sampling: DDPMSampling) -> tuple[object, ...]:
    status, progress = sampling.status, progress_of(sampling)
    attempt = status.attempt if status else None
    return str(phase(sampling)), attempt, status_message(sampling), progress.total, progress.percent // 10


def _to_the_end(seen: Iterator[DDPMSampling]) -> Iterator[DDPMSampling]:
    for sampling in seen:
        yield sampling
        if has_ended(sampling):
            return


def _as_json(seen: Iterator[DDPMSampling]) -> DDPMSampling:
    for sampling in seen:
        status = sampling.status
        print_json(
            {
                "name": sampling.metadata.name,
                "namespace": sampling.metadata.namespace,
                "phase": status.phase if status else None,
                "attempt": status.attempt if status else None,
                "progress": progress_of(sampling).to_document(),
                "message": status_message(sampling),
            }
        )
    return sampling


def _as_lines(seen: Iterator[DDPMSampling], console: Console) -> DDPMSampling:
    before: DDPMSampling | None = None
    for sampling in seen:
        said = line(before, sampling)
        if said:
            console.print(said, markup=False)
        before = sampling
    return sampling


def _live(seen: Iterator[DDPMSampling], console: Console) -> DDPMSampling:
    with Live(console=console, auto_refresh=False) as live:
        for sampling in seen:
            live.update(picture(sampling), refresh=True)
    return sampling
