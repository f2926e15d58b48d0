"""A clock that is set changes no deadline."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from ddpm_operator.controller.clock import MonotonicWallClock

NOON = 1_795_435_200.0
HOUR = 3600.0


@dataclass
class Machine:
    """Its clock, and the time that has passed really."""

    wall: float = NOON
    passed: float = 77.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds

    def clock(self) -> MonotonicWallClock:
        return MonotonicWallClock(lambda: self.wall, lambda: self.passed)


@given(st.lists(st.floats(0, HOUR), max_size=20))
def test_a_clock_that_nobody_sets_is_right(waits: list[float]) -> None:
    machine = Machine()
    clock = machine.clock()
    for seconds in waits:
        machine.wait(seconds)
        assert abs(clock.now().timestamp() - machine.wall) < 1e-3


@given(st.lists(st.tuples(st.floats(-1e8, 1e8), st.floats(0.01, HOUR)), min_size=1, max_size=20))
def test_however_it_is_set_a_second_is_nearly_a_second(jumps: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = machine.clock()
    for jump, seconds in jumps:
        before = clock.now().timestamp()
        machine.wall += jump
        machine.wait(seconds)
        went = clock.now().timestamp() - before
        assert 0.9 * seconds - 1e-3 <= went <= 1.1 * seconds + 1e-3


def test_it_comes_to_be_right_again() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall += 60
    for _ in range(610):
        machine.wait(1)
        now = clock.now()
    assert abs(now.timestamp() - machine.wall) < 1e-3
