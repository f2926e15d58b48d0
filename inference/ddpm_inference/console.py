"""The views that show a run to the user: a terminal, a plain log, JSON lines, or nothing.

Only JSON goes to stdout; everything else goes to stderr.
"""

from __future__ import annotations

import json
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

from ddpm_inference.progress import END_PHASES, Progress
from ddpm_inference.text import count

LOG_INTERVAL_SECONDS = 30.0
LOG_INTERVAL_PERCENT = 10.0


class QuietView:
    """Shows nothing."""

    def show_message(self, message: str) -> None:
        pass

    def show_progress(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class TerminalView:
    """A progress bar with rate and remaining time, redrawn in place; messages are printed above it."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bars.add_task("preparing", total=None, pace="")
        self._bars.start()

    def show_message(self, message: str) -> None:
        self._bars.console.print(message, markup=False, highlight=False)

    def show_progress(self, progress: Progress) -> None:
        sampling = progress.phase == "sampling"
        self._bars.update(
            self._task,
            description=progress.phase,
            total=progress.total if sampling else None,
            completed=progress.done_with_running if sampling else 0,
            pace=format_progress(progress) if sampling else "",
        )

    def close(self) -> None:
        self._bars.stop()


class LogView:
    """A plain line when a phase begins, then one every ten percent, or every half minute if that is sooner."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""
        self._percent = 0.0
        self._time = 0.0

    def show_message(self, message: str) -> None:
        print(message, file=self._stream, flush=True)

    def show_progress(self, progress: Progress) -> None:
        now, percent = time.monotonic(), progress.snapshot()["percent"]
        if progress.phase in (self._phase, *END_PHASES):
            due = percent >= self._percent + LOG_INTERVAL_PERCENT or now >= self._time + LOG_INTERVAL_SECONDS
            if progress.phase != "sampling" or not due:
                return
        self._phase, self._percent, self._time = progress.phase, percent, now
        self.show_message(f"{progress.phase}: {format_progress(progress)}" if progress.total else progress.phase)

    def close(self) -> None:
        pass


class JsonView:
    """One JSON object a line: ``{"event": "progress" | "message" | …}``; progress only when it has changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def show_message(self, message: str) -> None:
        write_event(self._stream, "message", message=message)

    def show_progress(self, progress: Progress) -> None:
        line = json.dumps({"event": "progress", **progress.snapshot()})
        if line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


def create_view(
    stdout: TextIO, stderr: TextIO, *, as_json: bool, quiet: bool
) -> QuietView | JsonView | TerminalView | LogView:
    """Returns the view for these flags and streams."""
    if as_json:
        return JsonView(stdout)
    if quiet:
        return QuietView()
    console = Console(file=stderr)
    return TerminalView(console) if console.is_terminal else LogView(stderr)


def write_event(stream: TextIO, kind: str, **fields: object) -> None:
    """Writes one event as a line of JSON."""
    print(json.dumps({"event": kind, **fields}), file=stream, flush=True)


def format_progress(progress: Progress) -> str:
    """Returns ``64/100 (64 %), 5.1 samples/s, 0:00:07 left``, without the parts that are not known.

    In a stall it ends with ``no step for 0:45`` instead of a time that is left.
    """
    parts = [f"{progress.done:,}/{progress.total:,} ({progress.snapshot()['percent']:.0f} %)"]
    if progress.phase == "sampling":
        if progress.samples_per_second is not None:
            parts.append(f"{progress.samples_per_second:,.2f} samples/s")
        if progress.eta_seconds is not None:
            parts.append(f"{format_duration(progress.eta_seconds)} left")
        if progress.stalled_seconds is not None:
            parts.append(f"no step for {format_duration(progress.stalled_seconds)}")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Returns ``0:07``, ``1:02:03`` or ``2 days 1:02:03``; rounds up to a whole second."""
    minutes, second = divmod(-int(-seconds // 1), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{count(days, 'day')} {clock}" if days else clock
