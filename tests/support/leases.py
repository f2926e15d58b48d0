"""Helpers for tests of the lease: a clock that advances by sleeping, and drivers of other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ddpm_inference.store.lease import DriverLease, Timing, acquire
from ddpm_inference.store.lease_holder import Attempt, Holder
from ddpm_inference.store.storage_backend import StorageBackend


@dataclass
class FakeClock:
    """A clock that advances only by sleeping.

    Attributes:
        on_sleep: called after each sleep, as what happens meanwhile.
    """

    now: float = 1000.0
    on_sleep: Callable[[], None] = lambda: None
    slept: float = field(default=0.0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        self.on_sleep()

    @property
    def timing(self) -> Timing:
        return Timing(monotonic=lambda: self.now, since_boot=lambda: self.now, sleep=self.sleep)


def a_driver(attempt: Attempt | None = None) -> Holder:
    """A holder on another machine, whose process cannot be looked up here."""
    return Holder.of_this_process(attempt).model_copy(update={"kernel": "another", "host": "far-away"})


def take(backend: StorageBackend, holder: Holder | None = None, clock: FakeClock | None = None) -> DriverLease:
    """Takes the lease of a store as a driver of another machine, without waiting in real time."""
    return acquire(backend, holder or a_driver(), timing=(clock or FakeClock()).timing)
