"""The views of a run: on a terminal, in a log, and as JSON."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from rich.console import Console

from ddpm_inference.console import (
    JsonView,
    LogView,
    QuietView,
    TerminalView,
    create_view,
    format_duration,
    format_progress,
)
from ddpm_inference.job import shards_of
from ddpm_inference.progress import Progress


def run(view: LogView | JsonView | TerminalView | QuietView, shards: int = 1000) -> Progress:
    """Plays a run that shows its progress after each shard, a second apart."""
    progress = Progress(phase="starting")
    view.show_progress(progress)
    view.show_message("two workers are ready")
    progress.begin(32 * shards, 0, shards)
    progress.phase = "sampling"
    for second, shard in enumerate(shards_of(32 * shards, 32)):
        progress.observe(float(second), {}, 2, 2)
        view.show_progress(progress)
        progress.shard_stored(shard)
    progress.phase = "writing"
    view.show_progress(progress)
    progress.phase = "complete"
    view.show_progress(progress)
    view.close()
    return progress


def test_a_log_gets_a_line_every_ten_percent() -> None:
    stream = io.StringIO()
    run(LogView(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "starting"
    assert lines[1] == "two workers are ready"
    assert lines[2].startswith("sampling: 0/32,000 (0 %)")
    assert lines[-1].startswith("writing: 32,000/32,000")
    assert len(lines) == 2 + 10 + 1
    assert stream.getvalue().isprintable() or set(stream.getvalue()) <= set(map(chr, range(32, 127))) | {"\n"}


def test_a_log_line_has_rate_and_time_left() -> None:
    stream = io.StringIO()
    run(LogView(stream))
    assert "sampling: 16,000/32,000 (50 %), 32.00 samples/s, 8:20 left" in stream.getvalue()


def test_json_lines_repeat_no_progress() -> None:
    stream = io.StringIO()
    view = JsonView(stream)
    progress = run(view, shards=10)
    view.show_progress(progress)
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert documents[1] == {"event": "message", "message": "two workers are ready"}
    shown = [document for document in documents if document["event"] == "progress"]
    assert [document["done"] for document in shown if document["phase"] == "sampling"] == list(range(0, 320, 32))
    assert shown[-1]["phase"] == "complete"
    assert all(a != b for a, b in pairwise(shown))


def test_a_terminal_shows_progress_and_keeps_messages() -> None:
    stream = io.StringIO()
    view = TerminalView(Console(file=stream, force_terminal=True, width=100, color_system=None))
    progress = Progress(phase="sampling")
    progress.begin(320, 0, 10)
    shards = list(shards_of(320, 32))
    progress.observe(0.0, {}, 1, 1)
    progress.shard_stored(shards[0])
    progress.observe(4.0, {}, 1, 1)
    view.show_progress(progress)
    view.show_message("a [message] with brackets")
    view.close()
    shown = stream.getvalue()
    assert "32/320 (10 %), 8.00 samples/s, 0:36 left" in shown
    assert "a [message] with brackets" in shown


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(QuietView())
    assert capsys.readouterr() == ("", "")


def test_the_view_depends_on_flags_and_stream() -> None:
    stream = io.StringIO()
    assert isinstance(create_view(stream, stream, as_json=False, quiet=False), LogView)
    assert isinstance(create_view(stream, stream, as_json=False, quiet=True), QuietView)
    assert isinstance(create_view(stream, stream, as_json=True, quiet=False), JsonView)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (0.2, "0:01"), (59, "0:59"), (60, "1:00"), (3599.5, "1:00:00"), (90_061, "1 day 1:01:01")],
)
def test_durations_are_formatted_like_a_clock(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_unknown_rate_and_time_left_are_omitted() -> None:
    progress = Progress(phase="sampling")
    progress.begin(100, 0, 4)
    assert format_progress(progress) == "0/100 (0 %)"


def test_a_stalled_run_has_no_time_left() -> None:
    progress = Progress(phase="sampling")
    first, second, _ = shards_of(96, 32)
    progress.begin(96, 0, 3)
    progress.observe(0.0, {}, 1, 1)
    progress.shard_stored(first)
    for now in (4.0, 4.5):
        progress.observe(now, {second: 0.5}, 1, 1)
    assert format_progress(progress).endswith(" left")
    for now in (5.0, 49.0):
        progress.observe(now, {second: 0.5}, 1, 1)
    assert format_progress(progress).endswith("samples/s, no step for 0:45")
