"""The clock of a run, which stands still while the run cannot advance."""

from __future__ import annotations

from ddpm_inference.ray_backend.run_clock import MAX_TICK_SECONDS, RunClock


def test_it_counts_the_time_between_ticks() -> None:
    clock = RunClock()
    for now in (100.0, 101.0, 103.5):
        clock.tick(now)
    assert clock.seconds == 3.5


def test_it_stands_still_in_a_pause() -> None:
    clock = RunClock()
    for now, paused in ((100.0, False), (104.0, True), (105.0, False)):
        clock.tick(now, paused=paused)
    assert clock.seconds == 1.0


def test_a_stopped_driver_counts_one_tick() -> None:
    clock = RunClock()
    clock.tick(100.0)
    clock.tick(100_000.0)
    assert clock.seconds == MAX_TICK_SECONDS
