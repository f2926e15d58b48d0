"""Who hears how far something is."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Is called with the bytes that have come and those that are to come in all."""


def ignore_progress(_come: int, _of: int) -> None:
    """Is told, and does nothing."""
