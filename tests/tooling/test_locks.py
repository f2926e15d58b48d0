"""The locks satisfy the projects' requirements, which exclude versions with known vulnerabilities."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hack.images.sbom import locked

ROOT = Path(__file__).resolve().parents[2]
LOCKS = {"inference": "worker", "operator": "operator"}


def requirements(package: str) -> dict[str, Requirement]:
    """Returns the dependencies of inference/ or operator/ by name."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    parsed = map(Requirement, project["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@pytest.mark.parametrize(
    ("dependency", "last_vulnerable", "first_fixed"),
    [("ray", "2.53.99", "2.54.0"), ("torch", "2.9.99", "2.10.0")],
)
def test_vulnerable_ray_and_torch_are_excluded(dependency: str, last_vulnerable: str, first_fixed: str) -> None:
    allowed = requirements("inference")[dependency].specifier
    assert not allowed.contains(last_vulnerable)
    assert allowed.contains(first_fixed)


@pytest.mark.parametrize("package", LOCKS)
def test_locked_versions_satisfy_the_requirements(package: str) -> None:
    pins = locked((ROOT / "requirements" / f"{LOCKS[package]}.txt").read_text())
    for name, requirement in requirements(package).items():
        assert pins.get(name), f"requirements/{LOCKS[package]}.txt lacks {name}: run requirements/lock"
        wrong = [version for version in pins[name] if not requirement.specifier.contains(version)]
        assert not wrong, f"{name} {wrong} is locked, but {package}/pyproject.toml requires {requirement}"
