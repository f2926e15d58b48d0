"""What a node has to work with. Runs there first, so it needs nothing but Python itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class NodePackages(NamedTuple):
    """What was found.

    Attributes:
        python: its version.
        packages: version of each package asked for, None where it is missing.
        torch: torch's version with its build, such as 2.15.0+cpu; None where it is missing.
    """

    python: str
    packages: dict[str, str | None]
    torch: str | None


def find_packages(packages: Iterable[str]) -> NodePackages:
    """Looks up packages by the names they are installed under; imports none of them."""
    return NodePackages(platform.python_version(), {name: _version(name) for name in packages}, torch_version())


def torch_version() -> str | None:
    """``torch.__version__`` without the seconds that importing torch takes."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    version: str = runpy.run_path(str(Path(found.origin).with_name("version.py")))["__version__"]
    return version


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
