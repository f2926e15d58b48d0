"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path


def user_path(text: str) -> Path:
    """Returns a path with ``~`` and ``~user`` expanded, which a shell leaves in ``--flag=~/x``.

    A path whose ``~`` names no user stays as it is; ``./~`` is a folder of that name.
    """
    path = Path(text)
    if not text.startswith("~"):  # Path drops the "./"
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path
