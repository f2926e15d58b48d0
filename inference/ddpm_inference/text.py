"""Formats numbers for messages. Pure."""

from __future__ import annotations


def count(number: float, noun: str) -> str:
    """Formats a number with its noun, such as ``1 shard``, ``0.5 CPUs`` or ``2,000 samples``."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{amount} {noun}{'' if number == 1 else 's'}"
