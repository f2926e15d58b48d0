"""How far a run is, how fast, and how long it still takes. Pure: the time is handed in."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NotRequired, Protocol, TypedDict, get_args

from ddpm_inference.job import Device, Shard

End = Literal["complete", "interrupted", "failed"]
Phase = Literal["preparing", "connecting", "starting", "sampling", "writing", End]

ENDS: tuple[End, ...] = get_args(End)

PROGRESS_VERSION = 1
WINDOW_SECONDS = 60.0
SIMULATED_ROUNDS = 4


class Plan(TypedDict):
    """What the run has chosen where it was left the choice; `shards` counts those of all N samples."""

    device: Device
    batchSize: int
    shards: int


class Snapshot(TypedDict):
    """The progress document, as ``--json`` prints it; without a plan until there is one."""

    version: int
    phase: Phase
    done: int
    total: int
    percent: float
    samplesPerSecond: float | None
    etaSeconds: float | None
    message: str
    plan: NotRequired[Plan]


class _Point(NamedTuple):
    """What this run had done at one moment.

    Attributes:
        samples, shards: those under way counted by their fraction.
        busy: seconds of work, summed over workers.
    """

    time: float
    samples: float
    shards: float
    busy: float


@dataclass
class Progress:
    """Counts of one run. Rate and ETA come from what this run does, never from what it found there.

    A shard costs a full batch of work however short it is, so the ETA counts shards; the rate counts samples.

    Attributes:
        done: samples stored, those of former runs included.
        total: N.
        message: the last sentence worth showing.
        plan: None until it is chosen.
    """

    phase: Phase = "preparing"
    message: str = ""
    plan: Plan | None = None
    done: int = 0
    total: int = 0
    _shards_left: int = 0
    _shards_done: int = 0
    _samples_done: int = 0
    _running: dict[Shard, float] = field(default_factory=dict)
    _workers: int = 0
    _busy: int = 0
    _window: deque[_Point] = field(default_factory=deque)

    def begin(self, total: int, done: int, shards_left: int) -> None:
        """Says what there is to do: N, samples already stored, shards still to sample."""
        self.total, self.done, self._shards_left = total, done, shards_left

    def finished(self, shard: Shard) -> None:
        """A shard is stored."""
        self.done += shard.size
        self._shards_left -= 1
        self._shards_done += 1
        self._samples_done += shard.size
        self._running.pop(shard, None)

    def given_up(self, shard: Shard) -> None:
        """A shard will not be sampled by this run."""
        self._shards_left -= 1
        self._running.pop(shard, None)

    def observe(self, now: float, running: Mapping[Shard, float], workers: int, busy: int) -> None:
        """Takes down one moment.

        Args:
            now: seconds of a monotonic clock.
            running: the shards being sampled and how much of each is done, 0 to 1, as far as that is known.
            workers: actors that are ready.
            busy: those of them that have something to do.
        """
        worked = self._window[-1].busy + (now - self._window[-1].time) * self._busy if self._window else 0.0
        self._running, self._workers, self._busy = dict(running), workers, busy
        if not busy and not self._shards_done:
            # Before the first worker is there, time says nothing about how fast it will be.
            self._window.clear()
            return
        samples = self._samples_done + sum(shard.size * part for shard, part in running.items())
        self._window.append(_Point(now, samples, self._shards_done + sum(running.values()), worked))
        while len(self._window) > 2 and self._window[1].time < now - WINDOW_SECONDS:
            self._window.popleft()

    @property
    def reached(self) -> float:
        """Samples stored, and those being sampled by how much of them is done."""
        return self.done + sum(shard.size * part for shard, part in self._running.items())

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second over the last minute; None before anything was seen to move."""
        passed = self._passed()
        return passed.samples / passed.time if passed else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last shard is sampled; None while it cannot be known, as without workers."""
        if not self.total:
            return None
        if not self._shards_left:
            return 0.0
        passed = self._passed()
        if passed is None or not self._workers:
            return None
        left = [1.0 - part for part in self._running.values()]
        return rounds(left, self._shards_left - len(left), self._workers) * passed.busy / passed.shards

    def snapshot(self) -> Snapshot:
        rate, eta = self.samples_per_second, self.eta_seconds
        snapshot = Snapshot(
            version=PROGRESS_VERSION,
            phase=self.phase,
            done=self.done,
            total=self.total,
            percent=round(100 * self.done / self.total, 2) if self.total else 0.0,
            samplesPerSecond=None if rate is None else round(rate, 3),
            etaSeconds=None if eta is None else round(eta, 1),
            message=self.message,
        )
        if self.plan is not None:
            snapshot["plan"] = self.plan
        return snapshot

    def _passed(self) -> _Point | None:
        """What was done within the window; None if that is nothing."""
        if len(self._window) < 2:
            return None
        passed = _Point(*(b - a for a, b in zip(self._window[0], self._window[-1], strict=True)))
        return passed if passed.time > 0 and passed.shards > 0 else None


class View(Protocol):
    """Where a run is shown."""

    def say(self, sentence: str) -> None:
        """Shows a sentence that the user should read."""

    def show(self, progress: Progress) -> None:
        """Shows how far the run is; called when its phase changes, and about once a second."""


def rounds(running: Sequence[float], pending: int, workers: int) -> float:
    """How long unit jobs take on some workers, in units of one job, when each takes the next as it gets free.

    Args:
        running: what is left (0 to 1) of the jobs under way.
        pending: jobs not begun.
        workers: at least 1.
    """
    free = ([*running, *[0.0] * workers])[: max(workers, len(running))]
    # All but the last rounds are told by the mean alone.
    ahead = max(0, pending - SIMULATED_ROUNDS * len(free)) // len(free)
    heapq.heapify(free)
    for _ in range(pending - ahead * len(free)):
        heapq.heapreplace(free, free[0] + 1.0)
    return max(free) + ahead
