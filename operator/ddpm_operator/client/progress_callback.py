"""Who hears how far something is."""

from __future__ import annotations

from collections.abc import Callable

Told = Callable[[int, int], None]
"""Is called with the bytes that have come and those that are to come in all."""


def nobody(_come: int, _of: int) -> None:
    """Is told, and does nothing."""
