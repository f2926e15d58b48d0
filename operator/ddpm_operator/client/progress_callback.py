"""Callback type for the progress of an upload or a download."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[int, int], None]
"""Called repeatedly with (bytes transferred so far, total bytes)."""


def ignore_progress(_done: int, _total: int) -> None:
    """Does nothing: the default callback."""
