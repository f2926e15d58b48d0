"""What there is to be known of a run from outside, put in place by the thread that runs it, read by others."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import NotRequired, TypedDict, final

from ddpm_inference.progress import ENDS, End, Progress, Snapshot, View


@final
class Complete(TypedDict):
    """How a run ended that found or made all samples.

    Attributes:
        manifestSha256: of the bytes of ``manifest.json``.
        samples, sampled: N, and how many of them this run drew.
        output: URI of the output place.
        grid: the first samples as PNG in base64; absent until somebody asks, None if it cannot be made.
    """

    manifestSha256: str
    samples: int
    sampled: int
    output: str
    grid: NotRequired[str | None]


@final
class Failure(TypedDict):
    """How any other run ended: the fields are those of `errors.DdpmError`."""

    reason: str
    exitCode: int
    message: str
    hint: str


class Ended(Snapshot):
    """The progress document in an end phase."""

    outcome: Complete | Failure


def no_picture(oldest: float) -> None:
    """The picture of a run that has not begun."""


@dataclass
class RunState:
    """Every document is put in place whole and never changed, so that who reads it needs no lock.

    Attributes:
        picture: see `Gallery.png`.
        heard: set as soon as somebody was given the outcome.
    """

    picture: Callable[[float], bytes | None] = no_picture
    heard: Event = field(default_factory=Event)
    _last: Snapshot = field(default_factory=lambda: Progress().snapshot())
    _posted: tuple[Snapshot, Complete | Failure | None] = field(init=False)

    def __post_init__(self) -> None:
        self._posted = self._last, None

    def post(self, snapshot: Snapshot) -> None:
        """Says how far the run is. An end phase is kept back until `end` says what came of it."""
        self._last = snapshot
        if snapshot["phase"] not in ENDS:
            self._posted = snapshot, None

    def end(self, phase: End, outcome: Complete | Failure) -> None:
        """Says how the run ended."""
        self._posted = {**self._last, "phase": phase}, outcome

    @property
    def ended(self) -> bool:
        return self._posted[1] is not None

    def document(self) -> Snapshot | Ended:
        """The answer to ``GET /progress``: how far the run is, or how it ended."""
        snapshot, outcome = self._posted
        if outcome is None:
            return snapshot
        if "reason" in outcome:
            return {**snapshot, "outcome": outcome}
        return {**snapshot, "outcome": {**outcome, "grid": self._grid()}}

    def _grid(self) -> str | None:
        png = self.picture(0.0)
        return b64encode(png).decode() if png else None


@dataclass
class RunStateView:
    """A view that also puts on a board what it shows."""

    view: View
    progress: Progress
    board: RunState

    def say(self, sentence: str) -> None:
        self.progress.message = sentence
        self.board.post(self.progress.snapshot())
        self.view.say(sentence)

    def show(self, progress: Progress) -> None:
        self.board.post(progress.snapshot())
        self.view.show(progress)
