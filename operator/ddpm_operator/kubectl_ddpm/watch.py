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
from ddpm_operator.api.conditions import holds_for_current_spec
from ddpm_operator.client.conditions import has_ended, status_message
from ddpm_operator.kubectl_ddpm.options import Commands, add_command, open_client, print_json
from ddpm_operator.kubectl_ddpm.views import phase, progress_of, progress_text

_BAR_WIDTH = 40

_DESCRIPTION = """\
Show the progress of a sampling until it has ended. Exits with 0 if it is
complete, and with 4 if it has failed."""

_EXAMPLES = """\
# Wait for a sampling
kubectl ddpm watch digits"""


def add_to(commands: Commands) -> None:
    command = add_command(
        commands,
        "watch",
        _watch,
        "Show the progress of a sampling until it ends",
        _DESCRIPTION,
        _EXAMPLES,
        ends_with_reader=True,
    )
    command.add_argument("name", metavar="NAME", help="name of the sampling")


def _watch(options: argparse.Namespace) -> int:
    states = _until_ended(open_client(options).watch(options.name))
    if options.json:
        last = _print_json_states(states)
    else:
        console = Console(highlight=False, soft_wrap=True)
        last = _show_live(states, console) if console.is_terminal else _print_lines(states, console)
    if not holds_for_current_spec(last, ConditionType.FAILED):
        return 0
    failure = last.status.failure if last.status else None
    if failure and not options.json:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"error: {failure.message}\n  {failure.hint}", markup=False
        )
    return 4


def changed_line(before: DDPMSampling | None, now: DDPMSampling) -> str | None:
    """Returns a log line for a new phase, attempt or message, and for every 10 % of progress; otherwise None."""
    if before is not None and _key(before) == _key(now):
        return None
    message = status_message(now)
    return f"{phase(now)}  {progress_text(progress_of(now))}{f'  {message}' if message else ''}"


def live_view(sampling: DDPMSampling) -> RenderableType:
    """Returns three lines for a terminal of any width: name and bar, progress, message."""
    progress = progress_of(sampling)
    name = Text.assemble((sampling.metadata.name, "bold"), "  ", phase(sampling))
    header = Table.grid(padding=(0, 2))
    header.add_column(no_wrap=True)
    header.add_row(name, ProgressBar(total=max(progress.total, 1), completed=progress.done, width=_BAR_WIDTH))
    below = (Text(progress_text(progress)), Text(status_message(sampling), "dim"))
    for line in below:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(header, *below)


def _key(sampling: DDPMSampling) -> tuple[object, ...]:
    status, progress = sampling.status, progress_of(sampling)
    attempt = status.attempt if status else None
    return str(phase(sampling)), attempt, status_message(sampling), progress.total, progress.percent // 10


def _until_ended(states: Iterator[DDPMSampling]) -> Iterator[DDPMSampling]:
    for sampling in states:
        yield sampling
        if has_ended(sampling):
            return


def _print_json_states(states: Iterator[DDPMSampling]) -> DDPMSampling:
    for sampling in states:
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


def _print_lines(states: Iterator[DDPMSampling], console: Console) -> DDPMSampling:
    before: DDPMSampling | None = None
    for sampling in states:
        line = changed_line(before, sampling)
        if line:
            console.print(line, markup=False)
        before = sampling
    return sampling


def _show_live(states: Iterator[DDPMSampling], console: Console) -> DDPMSampling:
    with Live(console=console, auto_refresh=False) as live:
        for sampling in states:
            live.update(live_view(sampling), refresh=True)
    return sampling
