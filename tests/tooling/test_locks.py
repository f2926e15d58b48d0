"""Packages with known holes stay out: their floor is stated once, and what is locked stands on it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hack.images.sbom import locked

ROOT = Path(__file__).resolve().parents[2]
HALVES = {"inference": "worker", "operator": "operator"}


def wanted(half: str) -> dict[str, Requirement]:
    """What a half of the project asks for, by name."""
    project = tomllib.loads((ROOT / half / "pyproject.toml").read_text())["project"]
    requirements = map(Requirement, project["dependencies"])
    return {canonicalize_name(it.name): it for it in requirements}


@pytest.mark.parametrize(
    ("package", "last_with_holes", "first_without"),
    [("ray", "2.53.99", "2.54.0"), ("torch", "2.9.99", "2.10.0")],
)
def test_the_floor_of_ray_and_torch_shuts_known_holes_out(
    package: str, last_with_holes: str, first_without: str
) -> None:
    floor = wanted("inference")[package].specifier
    assert not floor.contains(last_with_holes)
    assert floor.contains(first_without)


@pytest.mark.parametrize("half", HALVES)
def test_every_locked_version_is_one_that_the_project_asks_for(half: str) -> None:
    pins = locked((ROOT / "requirements" / f"{HALVES[half]}.txt").read_text())
    for name, requirement in wanted(half).items():
        assert pins.get(name), f"requirements/{HALVES[half]}.txt lacks {name}: run requirements/lock"
        wrong = [version for version in pins[name] if not requirement.specifier.contains(version)]
        assert not wrong, f"{name} {wrong} is locked, and {half}/pyproject.toml asks for {requirement}"
