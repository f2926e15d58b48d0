"""The wall clock for deadlines, while the machine's clock is set."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.controller.clock import MonotonicWallClock

NOON = 1_795_435_200.0
HOUR = 3600.0


@dataclass
class Machine:
    """A machine's wall clock, which can be set, and its monotonic clock."""

    wall: float = NOON
    monotonic: float = 77.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> MonotonicWallClock:
        return MonotonicWallClock(lambda: self.wall, lambda: self.monotonic)


@given(st.lists(st.floats(0, HOUR), max_size=20))
def test_equals_the_wall_clock_while_that_is_not_set(waits: list[float]) -> None:
    machine = Machine()
    clock = machine.clock()
    for seconds in waits:
        machine.wait(seconds)
        assert abs(clock.now().timestamp() - machine.wall) < 1e-3


@given(st.lists(st.tuples(st.floats(-1e8, 1e8), st.floats(0.01, HOUR)), min_size=1, max_size=20))
def test_pace_differs_by_at_most_a_tenth(jumps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    for jump, seconds in jumps:
        before = clock.now().timestamp()
        machine.wall += jump
        machine.wait(seconds)
        elapsed = clock.now().timestamp() - before
        assert 0.9 * seconds - 1e-3 <= elapsed <= 1.1 * seconds + 1e-3


def test_catches_up_after_a_jump() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 60
    for _ in range(610):
        machine.wait(1)
        now = clock.now()
    assert abs(now.timestamp() - machine.wall) < 1e-3
