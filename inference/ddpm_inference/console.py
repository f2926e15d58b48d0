"""Where a run is shown: a terminal, a log, lines of JSON, or nowhere. stdout is for JSON alone."""

from __future__ import annotations

import json
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bars

from ddpm_inference.progress import ENDS, Progress

LINE_SECONDS = 30.0
LINE_PERCENT = 10.0


class Quiet:
    """Shows nothing."""

    def say(self, sentence: str) -> None:
        pass

    def show(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass


class Terminal:
    """A bar with rate and remaining time that stays in its place; sentences go above it."""

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

    def say(self, sentence: str) -> None:
        self._bars.console.print(sentence, markup=False, highlight=False)

    def show(self, progress: Progress) -> None:
        sampling = progress.phase == "sampling"
        self._bars.update(
            self._task,
            description=progress.phase,
            total=progress.total if sampling else None,
            completed=progress.reached if sampling else 0,
            pace=pace(progress) if sampling else "",
        )

    def close(self) -> None:
        self._bars.stop()


class Log:
    """A plain line when a phase begins, then one every ten percent, or every half minute if that is slower."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._phase = ""
        self._percent = 0.0
        self._time = 0.0

    def say(self, sentence: str) -> None:
        print(sentence, file=self._stream, flush=True)

    def show(self, progress: Progress) -> None:
        now, percent = time.monotonic(), progress.snapshot()["percent"]
        if progress.phase in (self._phase, *ENDS):
            due = percent >= self._percent + LINE_PERCENT or now >= self._time + LINE_SECONDS
            if progress.phase != "sampling" or not due:
                return
        self._phase, self._percent, self._time = progress.phase, percent, now
        self.say(f"{progress.phase}: {pace(progress)}" if progress.total else progress.phase)

    def close(self) -> None:
        pass


class JsonLines:
    """One JSON object a line: ``{"event": "progress" | "message" | …}``, progress when it has changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def say(self, sentence: str) -> None:
        event(self._stream, "message", message=sentence)

    def show(self, progress: Progress) -> None:
        line = json.dumps({"event": "progress", **progress.snapshot()})
        if line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        pass


def view_for(stdout: TextIO, stderr: TextIO, *, as_json: bool, quiet: bool) -> Quiet | JsonLines | Terminal | Log:
    """The view that fits the flags and the streams."""
    if as_json:
        return JsonLines(stdout)
    if quiet:
        return Quiet()
    console = Console(file=stderr)
    return Terminal(console) if console.is_terminal else Log(stderr)


def event(stream: TextIO, kind: str, **fields: object) -> None:
    """Writes one line of JSON."""
    print(json.dumps({"event": kind, **fields}), file=stream, flush=True)


def pace(progress: Progress) -> str:
    """``64/100 (64 %), 5.1 samples/s, 0:00:07 left``."""
    words = [f"{progress.done:,}/{progress.total:,} ({progress.snapshot()['percent']:.0f} %)"]
    if progress.phase == "sampling":
        if progress.samples_per_second is not None:
            words.append(f"{progress.samples_per_second:,.2f} samples/s")
        if progress.eta_seconds is not None:
            words.append(f"{duration(progress.eta_seconds)} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """``0:07`` or ``1:02:03`` or ``2 days 1:02:03``; a begun second counts."""
    minutes, second = divmod(-int(-seconds // 1), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{days} days {clock}" if days else clock
