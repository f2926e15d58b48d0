"""Samplings as a person reads them. Pure: the time is handed in."""

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


def table(samplings: Sequence[DDPMSampling], now: datetime, *, namespaces: bool) -> Table:
    """One line a sampling.

    Args:
        namespaces: shows whose it is.
    """
    found = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in (*(("NAMESPACE",) if namespaces else ()), "NAME", "PHASE"):
        found.add_column(column, no_wrap=True, overflow="fold")
    for column in ("DONE", "TOTAL", "ETA", "AGE"):
        found.add_column(column, justify="right", no_wrap=True)
    for one in samplings:
        progress = progress_of(one)
        where = (one.metadata.namespace,) if namespaces else ()
        eta = progress.eta or ""
        found.add_row(
            *where, one.metadata.name, phase(one), str(progress.done), str(progress.total), eta, age(one, now)
        )
    return found


def details(sampling: DDPMSampling, now: datetime) -> RenderableType:
    """All that a person asks of one sampling."""
    spec, status = sampling.spec, sampling.status
    title = Text.assemble((sampling.metadata.name, "bold"), "  ", phase(sampling), f"  {age(sampling, now)} old")
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")

    def row(name: str, value: str | None) -> None:
        if value:
            rows.add_row(f"  {name}", Text(value))

    row("asked for", f"{count(spec.samples, 'sample')} of {spec.model.uri}, {spec.sampler.name}, seed {spec.seed}")
    row("progress", progress_words(progress_of(sampling)))
    failure = status.failure if status else None
    row("now", None if failure else status_message(sampling))
    if status:
        row("attempt", str(status.attempt) if status.attempt else None)
        row("failed with", f"{failure.reason}: {failure.message}" if failure else None)
        row("to do", failure.hint if failure else None)
        row("log's end", failure.log_tail if failure else None)
        row("cluster", status.cluster.name if status.cluster else None)
        row("image", status.image)
        row("why so", "\n".join(status.plan.why) if status.plan else None)
        row("samples", status.output.uri if status.output else None)
        row("manifest", status.output.manifest_sha256 if status.output else None)
        cost = status.cost
        row("cost", f"{cost.cpu_seconds:,} CPU seconds, {cost.gpu_seconds:,} GPU seconds" if cost else None)
    return Group(title, rows)


def progress_of(sampling: DDPMSampling) -> Progress:
    """How far it is; nothing done where nothing is said."""
    said = sampling.status.progress if sampling.status else None
    return said or Progress(done=0, total=sampling.spec.samples, percent=0)


def progress_words(progress: Progress) -> str:
    """``64 of 100 samples (64 %), 12.5 a second, 3s left``."""
    rate = f", {progress.samples_per_second} a second" if progress.samples_per_second else ""
    left = f", {progress.eta} left" if progress.eta else ""
    return f"{progress.done:,} of {count(progress.total, 'sample')} ({progress.percent} %){rate}{left}"


def phase(sampling: DDPMSampling) -> Text:
    """Its phase, coloured; a dash before an operator has seen it."""
    found = sampling.status.phase if sampling.status else None
    return Text(found, _COLOURS.get(found, "")) if found else Text("-")


def age(sampling: DDPMSampling, now: datetime) -> str:
    created = sampling.metadata.creation_timestamp
    return duration(max(0.0, (now - created).total_seconds())) if created else ""
