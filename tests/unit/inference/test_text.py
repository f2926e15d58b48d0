"""Numbers and suggestions in messages."""

from __future__ import annotations

import pytest

from ddpm_inference.text import count, did_you_mean


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 CPUs"), (1, "1 CPU"), (1.0, "1 CPU"), (0.5, "0.5 CPUs"), (2, "2 CPUs"), (2000, "2,000 CPUs")],
)
def test_counted_nouns(number: float, text: str) -> None:
    assert count(number, "CPU") == text


def test_the_closest_word_is_suggested() -> None:
    assert did_you_mean("DDIN", ["ddpm", "ddim"]) == "; did you mean ddim?"
    assert did_you_mean("euler", ["ddpm", "ddim"]) == ""
