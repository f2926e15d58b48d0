"""Finds the Python packages that are installed on a node.

Runs on the node before anything else does, so it needs the standard library only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class NodePackages(NamedTuple):
    """The Python environment of a node.

    Attributes:
        python: Python version.
        packages: version of each package that was looked for; None where it is missing.
        torch: torch's version with its build, such as 2.15.0+cpu; None where it is missing.
    """

    python: str
    packages: dict[str, str | None]
    torch: str | None


def find_packages(packages: Iterable[str]) -> NodePackages:
    """Looks up packages by their distribution names, without importing them."""
    return NodePackages(platform.python_version(), {name: _version(name) for name in packages}, torch_version())


def torch_version() -> str | None:
    """Returns ``torch.__version__``, build included, without the seconds that importing torch takes."""
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
