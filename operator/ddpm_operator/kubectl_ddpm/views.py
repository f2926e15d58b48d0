"""Renders samplings as text for a terminal: the table of `list`, the details of `status`, progress. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ddpm_operator.api import DDPMSampling, Phase, Progress
from ddpm_operator.client.conditions import status_message
from ddpm_operator.text import count, duration

_COLOURS = {Phase.SUCCEEDED: "green", Phase.FAILED: "red", Phase.RUNNING: "cyan"}


def samplings_table(samplings: Sequence[DDPMSampling], now: datetime, *, with_namespace: bool) -> Table:
    """Returns a table with one row per sampling."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in (*(("NAMESPACE",) if with_namespace else ()), "NAME", "PHASE"):
        table.add_column(column, no_wrap=True, overflow="fold")
    for column in ("DONE", "TOTAL", "ETA", "AGE"):
        table.add_column(column, justify="right", no_wrap=True)
    for it in samplings:
        progress = progress_of(it)
        namespace = (it.metadata.namespace,) if with_namespace else ()
        eta = progress.eta or ""
        table.add_row(
            *namespace, it.metadata.name, phase(it), str(progress.done), str(progress.total), eta, age(it, now)
        )
    return table


def sampling_details(sampling: DDPMSampling, now: datetime) -> RenderableType:
    """Returns the details of one sampling, one labelled row each. Rows without a value are left out."""
    spec, status = sampling.spec, sampling.status
    title = Text.assemble((sampling.metadata.name, "bold"), "  ", phase(sampling), f"  {age(sampling, now)} old")
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")

    def row(label: str, value: str | None) -> None:
        if value:
            rows.add_row(f"  {label}", Text(value))

    row(
        "requested",
        f"{count(spec.samples, 'sample')} of {spec.model.uri}, {spec.sampler.name or 'default sampler'}, "
        f"seed {spec.seed}",
    )
    row("progress", progress_text(progress_of(sampling)))
    failure = status.failure if status else None
    row("state", None if failure else status_message(sampling))
    if status:
        row("attempt", str(status.attempt) if status.attempt else None)
        row("failure", f"{failure.reason}: {failure.message}" if failure else None)
        row("what to do", failure.hint if failure else None)
        row("log tail", failure.log_tail if failure else None)
        row("cluster", status.cluster.name if status.cluster else None)
        row("image", status.image)
        row("plan", "\n".join(status.plan.why) if status.plan else None)
        row("output", status.output.uri if status.output else None)
        row("manifest", status.output.manifest_sha256 if status.output else None)
        cost = status.cost
        row("cost", f"{cost.cpu_seconds:,} CPU seconds, {cost.gpu_seconds:,} GPU seconds" if cost else None)
    return Group(title, rows)


def progress_of(sampling: DDPMSampling) -> Progress:
    """Returns the progress in the status; zero if there is none yet."""
    progress = sampling.status.progress if sampling.status else None
    return progress or Progress(done=0, total=sampling.spec.samples, percent=0)


def progress_text(progress: Progress) -> str:
    """Returns ``64 of 100 samples (64 %), 12.5/s, 3s left``."""
    rate = f", {progress.samples_per_second}/s" if progress.samples_per_second else ""
    left = f", {progress.eta} left" if progress.eta else ""
    return f"{progress.done:,} of {count(progress.total, 'sample')} ({progress.percent} %){rate}{left}"


def phase(sampling: DDPMSampling) -> Text:
    """Returns the coloured phase; a dash before the operator has set one."""
    phase = sampling.status.phase if sampling.status else None
    return Text(phase, _COLOURS.get(phase, "")) if phase else Text("-")


def age(sampling: DDPMSampling, now: datetime) -> str:
    """Returns the time since creation, such as ``2m05s``."""
    created = sampling.metadata.creation_timestamp
    return duration(max(0.0, (now - created).total_seconds())) if created else ""
