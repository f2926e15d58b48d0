"""Progress of one run: counts, rate and remaining time. Pure: the caller passes the time.

`actor_pool` and `driver` keep it up to date, views show it, and the progress server publishes its snapshots.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, NotRequired, Protocol, TypedDict, get_args

from ddpm_inference.job import Device, Shard

EndPhase = Literal["complete", "interrupted", "failed"]
Phase = Literal["preparing", "connecting", "starting", "sampling", "writing", EndPhase]

END_PHASES: tuple[EndPhase, ...] = get_args(EndPhase)

PROGRESS_VERSION = 1
WINDOW_SECONDS = 60.0
SIMULATED_ROUNDS = 4
MIN_STALL_SECONDS = 30.0
STALL_FACTOR = 3.0
# Of each kind. The operator remembers 32 nodes.
MAX_NODE_IPS = 64


class Plan(TypedDict):
    """What the run has chosen where the job left it open; `shards` counts those of all N samples.

    `hardware` has the known fields of `job.Hardware`: workers of later attempts must have the same.
    """

    device: Device
    batchSize: int
    shards: int
    hardware: NotRequired[dict[str, str]]


class NodeIps(TypedDict):
    """Addresses of the Ray nodes on which workers have compared their hardware with that of the job's identity.

    Attributes:
        ready: of those that draw samples.
        otherHardware: of those that cannot, as their hardware is another.
    """

    ready: list[str]
    otherHardware: list[str]


class Snapshot(TypedDict):
    """The progress document, as ``--json`` prints it. It has no plan until there is one.

    There are no `nodeIps` on a local Ray, or where hardware may be mixed.
    """

    version: int
    phase: Phase
    done: int
    total: int
    percent: float
    samplesPerSecond: float | None
    etaSeconds: float | None
    message: str
    plan: NotRequired[Plan]
    nodeIps: NotRequired[NodeIps]


class _Point(NamedTuple):
    """The work that this run had done at one time.

    Attributes:
        time: seconds of a monotonic clock.
        samples, shards: those that are running count by the fraction done.
        busy: seconds of work, summed over the workers.
    """

    time: float
    samples: float
    shards: float
    busy: float


@dataclass
class Progress:
    """Counts of one run. Rate and ETA are computed from the work of this run, never from samples stored before.

    A shard takes a full batch of work however short it is, so the ETA counts shards while the rate counts samples.

    Attributes:
        done: samples stored, those of earlier runs included.
        total: N.
        message: the latest message for the user.
        plan: None until it is chosen.
        node_ips: see `NodeIps`.
    """

    phase: Phase = "preparing"
    message: str = ""
    plan: Plan | None = None
    node_ips: NodeIps = field(default_factory=lambda: NodeIps(ready=[], otherHardware=[]))
    done: int = 0
    total: int = 0
    _shards_left: int = 0
    _shards_done: int = 0
    _samples_done: int = 0
    _running: dict[Shard, float] = field(default_factory=dict)
    _workers: int = 0
    _busy: int = 0
    _window: deque[_Point] = field(default_factory=deque)
    _now: float = 0.0
    _work: float | None = None
    _last_step: float = 0.0
    _longest_pause: float = 0.0

    def begin(self, total: int, done: int, shards_left: int) -> None:
        """Sets N, the samples that are stored already, and the shards to sample."""
        self.total, self.done, self._shards_left = total, done, shards_left

    def node_ready(self, ip: str) -> None:
        """Records that a worker on this Ray node draws samples."""
        _add(self.node_ips["ready"], ip)

    def node_with_other_hardware(self, ip: str) -> None:
        """Records that a worker on this Ray node cannot draw, as its hardware is not that of the identity."""
        _add(self.node_ips["otherHardware"], ip)

    def shard_stored(self, shard: Shard) -> None:
        """Counts a shard as stored."""
        self.done += shard.size
        self._shards_left -= 1
        self._shards_done += 1
        self._samples_done += shard.size
        self._running.pop(shard, None)

    def shard_failed(self, shard: Shard) -> None:
        """Stops counting on a shard that failed permanently."""
        self._shards_left -= 1
        self._running.pop(shard, None)

    def observe(self, now: float, running: Mapping[Shard, float], workers: int, busy: int) -> None:
        """Records the state of the workers at one time.

        Args:
            now: seconds of a monotonic clock.
            running: the shards being sampled and the fraction (0 to 1) of each that is done, as far as known.
            workers: the number of actors that are ready.
            busy: the number of those that have a shard.
        """
        worked = self._window[-1].busy + (now - self._window[-1].time) * self._busy if self._window else 0.0
        self._running, self._workers, self._busy = dict(running), workers, busy
        if not busy and not self._shards_done:
            # The time until the first worker is ready says nothing about the rate.
            self._window.clear()
            self._work = None
            return
        self._observe_steps(now, busy)
        samples = self._samples_done + sum(shard.size * fraction for shard, fraction in running.items())
        self._window.append(_Point(now, samples, self._shards_done + sum(running.values()), worked))
        while len(self._window) > 2 and self._window[1].time < now - WINDOW_SECONDS:
            self._window.popleft()

    def _observe_steps(self, now: float, busy: int) -> None:
        work = self._shards_done + sum(self._running.values())
        if self._work is None or not busy:
            self._last_step = now
        elif work != self._work:
            self._longest_pause = max(self._longest_pause, now - self._last_step)
            self._last_step = now
        self._now, self._work = now, work

    @property
    def stalled_seconds(self) -> float | None:
        """Seconds since a busy worker last made a step, if that is unusually long; None if it is not."""
        pause = self._now - self._last_step
        return pause if pause > max(MIN_STALL_SECONDS, STALL_FACTOR * self._longest_pause) else None

    @property
    def done_with_running(self) -> float:
        """Samples stored, plus the running ones by the fraction that is done."""
        return self.done + sum(shard.size * fraction for shard, fraction in self._running.items())

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second over the last minute; None before any progress was observed."""
        work = self._work_in_window()
        return work.samples / work.time if work else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the last shard is sampled; None while it cannot be known, as without workers or in a stall."""
        if not self.total:
            return None
        if not self._shards_left:
            return 0.0
        work = self._work_in_window()
        if work is None or not self._workers or self.stalled_seconds is not None:
            return None
        left = [1.0 - fraction for fraction in self._running.values()]
        return makespan(left, self._shards_left - len(left), self._workers) * work.busy / work.shards

    def snapshot(self) -> Snapshot:
        """Returns the progress document of this moment."""
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
        if any(self.node_ips.values()):
            # A snapshot never changes; the lists grow.
            snapshot["nodeIps"] = NodeIps(
                ready=[*self.node_ips["ready"]], otherHardware=[*self.node_ips["otherHardware"]]
            )
        return snapshot

    def _work_in_window(self) -> _Point | None:
        """Returns the difference between the ends of the window; None if no work was done in it."""
        if len(self._window) < 2:
            return None
        work = _Point(*(b - a for a, b in zip(self._window[0], self._window[-1], strict=True)))
        return work if work.time > 0 and work.shards > 0 else None


def _add(ips: list[str], ip: str) -> None:
    if ip not in ips and len(ips) < MAX_NODE_IPS:
        ips.append(ip)


class View(Protocol):
    """Shows a run to the user."""

    def show_message(self, message: str) -> None:
        """Shows a message."""

    def show_progress(self, progress: Progress) -> None:
        """Shows the progress; called when the phase changes, and about once a second."""


def makespan(running: Sequence[float], pending: int, workers: int) -> float:
    """Returns the time until all jobs are done, if each takes one unit and each free worker takes the next.

    Args:
        running: what is left (0 to 1) of each running job.
        pending: the number of jobs that have not begun.
        workers: at least 1.
    """
    free = ([*running, *[0.0] * workers])[: max(workers, len(running))]
    # Only the last rounds need a simulation; before them the workers are busy all the time.
    skipped_rounds = max(0, pending - SIMULATED_ROUNDS * len(free)) // len(free)
    heapq.heapify(free)
    for _ in range(pending - skipped_rounds * len(free)):
        heapq.heapreplace(free, free[0] + 1.0)
    return max(free) + skipped_rounds
