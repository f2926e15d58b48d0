"""The published state of a run: written by the thread that runs the job, read by the HTTP server's threads.

`RunStateView` forwards what the driver reports to `RunState`; `server` serves it as JSON.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import NotRequired, TypedDict, final

from ddpm_inference.progress import END_PHASES, EndPhase, Progress, Snapshot, View


@final
class Complete(TypedDict):
    """Outcome of a run after which all samples are stored.

    Attributes:
        manifestSha256: of the bytes of ``manifest.json``.
        samples, sampled: N, and how many of them this run drew.
        output: the output URI.
        grid: the first samples as a base64 PNG; added by `RunState.document`, None if it cannot be rendered.
    """

    manifestSha256: str
    samples: int
    sampled: int
    output: str
    grid: NotRequired[str | None]


@final
class Failure(TypedDict):
    """Outcome of any other run; the fields are those of `errors.DdpmError`.

    Attributes:
        otherHardwareIps: absent if there are none.
    """

    reason: str
    exitCode: int
    message: str
    hint: str
    otherHardwareIps: NotRequired[list[str]]


class Ended(Snapshot):
    """The progress document of a run that has ended."""

    outcome: Complete | Failure


def no_thumbnail(max_age: float) -> None:
    """Stands in for `Thumbnail.png` until a run begins."""


@dataclass
class RunState:
    """The latest progress document. Each document is replaced as a whole and never changed, so readers need no lock.

    Attributes:
        thumbnail: see `Thumbnail.png`.
        outcome_sent: set once an authorized client has received the outcome.
    """

    thumbnail: Callable[[float], bytes | None] = no_thumbnail
    outcome_sent: Event = field(default_factory=Event)
    _last: Snapshot = field(default_factory=lambda: Progress().snapshot())
    _published: tuple[Snapshot, Complete | Failure | None] = field(init=False)

    def __post_init__(self) -> None:
        self._published = self._last, None

    def publish(self, snapshot: Snapshot) -> None:
        """Publishes progress. A snapshot in an end phase is withheld until `end` adds its outcome."""
        self._last = snapshot
        if snapshot["phase"] not in END_PHASES:
            self._published = snapshot, None

    def end(self, phase: EndPhase, outcome: Complete | Failure) -> None:
        """Publishes the end phase together with its outcome."""
        self._published = {**self._last, "phase": phase}, outcome

    @property
    def ended(self) -> bool:
        """Whether the outcome is published."""
        return self._published[1] is not None

    def document(self) -> Snapshot | Ended:
        """Returns the response to ``GET /progress``: the progress, or the outcome once there is one."""
        snapshot, outcome = self._published
        if outcome is None:
            return snapshot
        if "reason" in outcome:
            return {**snapshot, "outcome": outcome}
        return {**snapshot, "outcome": {**outcome, "grid": self._grid()}}

    def _grid(self) -> str | None:
        png = self.thumbnail(0.0)
        return b64encode(png).decode() if png else None


@dataclass
class RunStateView:
    """A view that publishes what another view shows."""

    view: View
    progress: Progress
    run_state: RunState

    def show_message(self, message: str) -> None:
        self.progress.message = message
        self.run_state.publish(self.progress.snapshot())
        self.view.show_message(message)

    def show_progress(self, progress: Progress) -> None:
        self.run_state.publish(progress.snapshot())
        self.view.show_progress(progress)
