"""Checks that the nodes of a cluster have the packages a worker needs, in versions that this program accepts."""

from __future__ import annotations

import importlib.metadata
import re

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.ray_backend.node_packages import NodePackages

THIS_PACKAGE = "ddpm-inference"
WORKER_PACKAGES = ("fsspec", "numpy", "pydantic", "ray", "s3fs", "safetensors")
# Older releases of these have known vulnerabilities; the oldest accepted release is the one in pyproject.toml.
MINIMUM_VERSION_ENFORCED = ("ray", "torch")


def require_packages(found: NodePackages) -> str:
    """Returns the torch version of the nodes if they have everything a worker needs.

    Raises:
        ResourcesUnavailable: if a package is missing (naming each, with the command that installs it), if Ray or torch
            is of a version with known vulnerabilities, or if this package has another version there than here.
    """
    versions = {**found.packages, "torch": found.torch}
    for name in MINIMUM_VERSION_ENFORCED:
        version = versions.get(name)
        if version is not None and _release(version) < _oldest_release(name):
            raise ResourcesUnavailable(
                f"the nodes of the Ray cluster have {name} {version}, which has known vulnerabilities",
                hint=f"install on every node: pip install {_requirement(name)}",
            )
    on_nodes, here = found.packages.get(THIS_PACKAGE), importlib.metadata.version(THIS_PACKAGE)
    if on_nodes is not None and on_nodes != here:
        raise ResourcesUnavailable(
            f"the nodes of the Ray cluster have {THIS_PACKAGE} {on_nodes}, but the driver has {here}",
            hint="run the same image on all of them",
        )
    missing = [name for name, version in found.packages.items() if version is None]
    if found.torch is not None and not missing:
        return found.torch
    if found.torch is None:
        missing.append("torch")
    raise ResourcesUnavailable(
        f"the nodes of the Ray cluster lack {', '.join(missing)} (Python {found.python})",
        hint=f"install on every node: pip install {' '.join(map(_requirement, missing))}",
    )


def _requirement(name: str) -> str:
    """Returns this program's requirement of a package, quoted for pip, such as ``'torch>=2.10'``."""
    for requirement in importlib.metadata.requires(THIS_PACKAGE) or ():
        if re.match(rf"{re.escape(name)}\b", requirement):
            return f"'{requirement}'"
    return name


def _oldest_release(name: str) -> tuple[int, ...]:
    return _release(_requirement(name).partition(">=")[2])


def _release(version: str) -> tuple[int, ...]:
    """Returns major and minor: (2, 10) for ``2.10.0+cpu`` and for ``2.10rc1``; () if it starts with no number."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else ()
