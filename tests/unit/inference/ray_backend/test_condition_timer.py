"""How long a condition has held."""

from __future__ import annotations

from ddpm_inference.ray_backend.condition_timer import ConditionTimer


def test_the_time_counts_from_the_first_update_that_holds() -> None:
    timer = ConditionTimer()
    assert [timer.update(True, now) for now in (10.0, 12.0, 15.5)] == [0.0, 2.0, 5.5]
    assert timer.holds


def test_an_interruption_restarts_the_time() -> None:
    timer = ConditionTimer()
    timer.update(True, 10.0)
    assert timer.update(False, 20.0) == 0.0
    assert not timer.holds
    assert [timer.update(True, now) for now in (30.0, 31.0)] == [0.0, 1.0]
