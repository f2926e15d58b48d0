"""Formats numbers and suggestions for messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def count(number: float, noun: str) -> str:
    """Formats a number with its noun, such as ``1 shard``, ``0.5 CPUs`` or ``2,000 samples``."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{amount} {noun}{'' if number == 1 else 's'}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``; did you mean WORD?`` with the known word that is closest to a misspelt one, or "" if none is."""
    original = {each.lower(): each for each in known}
    close = get_close_matches(word.lower(), original, n=1)
    return f"; did you mean {original[close[0]]}?" if close else ""
