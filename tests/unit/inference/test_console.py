"""What a run looks like on a terminal, in a log, and as JSON."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import pytest
from rich.console import Console

from ddpm_inference.console import JsonLines, Log, Quiet, Terminal, duration, pace, view_for
from ddpm_inference.job import shards_of
from ddpm_inference.progress import Progress


def run(view: Log | JsonLines | Terminal | Quiet, shards: int = 1000) -> Progress:
    """A run of many shards, shown after each of them, a second apart."""
    progress = Progress(phase="starting")
    view.show(progress)
    view.say("two workers are there")
    progress.begin(32 * shards, 0, shards)
    progress.phase = "sampling"
    for second, shard in enumerate(shards_of(32 * shards, 32)):
        progress.observe(float(second), {}, 2, 2)
        view.show(progress)
        progress.finished(shard)
    progress.phase = "writing"
    view.show(progress)
    progress.phase = "complete"
    view.show(progress)
    view.close()
    return progress


def test_a_log_gets_a_line_now_and_then_and_no_control_characters() -> None:
    stream = io.StringIO()
    run(Log(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "starting"
    assert lines[1] == "two workers are there"
    assert lines[2].startswith("sampling: 0/32,000 (0 %)")
    assert lines[-1].startswith("writing: 32,000/32,000")
    assert len(lines) == 2 + 10 + 1
    assert stream.getvalue().isprintable() or set(stream.getvalue()) <= set(map(chr, range(32, 127))) | {"\n"}


def test_a_line_of_the_log_tells_rate_and_time_left() -> None:
    stream = io.StringIO()
    run(Log(stream))
    assert "sampling: 16,000/32,000 (50 %), 32.00 samples/s, 8:20 left" in stream.getvalue()


def test_every_line_of_json_is_a_document_and_progress_comes_when_it_changes() -> None:
    stream = io.StringIO()
    view = JsonLines(stream)
    progress = run(view, shards=10)
    view.show(progress)
    documents = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert documents[1] == {"event": "message", "message": "two workers are there"}
    shown = [document for document in documents if document["event"] == "progress"]
    assert [document["done"] for document in shown if document["phase"] == "sampling"] == list(range(0, 320, 32))
    assert shown[-1]["phase"] == "complete"
    assert all(a != b for a, b in pairwise(shown))


def test_a_terminal_shows_bar_rate_and_time_left_and_leaves_only_the_sentences() -> None:
    stream = io.StringIO()
    view = Terminal(Console(file=stream, force_terminal=True, width=100, color_system=None))
    progress = Progress(phase="sampling")
    progress.begin(320, 0, 10)
    shards = list(shards_of(320, 32))
    progress.observe(0.0, {}, 1, 1)
    progress.finished(shards[0])
    progress.observe(4.0, {}, 1, 1)
    view.show(progress)
    view.say("a [sentence] with brackets")
    view.close()
    shown = stream.getvalue()
    assert "32/320 (10 %), 8.00 samples/s, 0:36 left" in shown
    assert "a [sentence] with brackets" in shown


def test_quiet_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run(Quiet())
    assert capsys.readouterr() == ("", "")


def test_the_view_follows_the_flags_and_the_stream() -> None:
    stream = io.StringIO()
    assert isinstance(view_for(stream, stream, as_json=False, quiet=False), Log)
    assert isinstance(view_for(stream, stream, as_json=False, quiet=True), Quiet)
    assert isinstance(view_for(stream, stream, as_json=True, quiet=False), JsonLines)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0:00"), (0.2, "0:01"), (59, "0:59"), (60, "1:00"), (3599.5, "1:00:00"), (90_061, "1 days 1:01:01")],
)
def test_durations_read_like_a_clock(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_pace_claims_nothing_it_does_not_know() -> None:
    progress = Progress(phase="sampling")
    progress.begin(100, 0, 4)
    assert pace(progress) == "0/100 (0 %)"
