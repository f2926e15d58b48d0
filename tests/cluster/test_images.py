"""The finished images: their packages, labels and size."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hack.images.sbom import locked, main

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / "requirements"
MAX_OPERATOR_SIZE = 350_000_000  # bytes, unpacked

pytestmark = [pytest.mark.node, pytest.mark.draws_nothing]


@pytest.mark.parametrize(("image", "package"), [("operator", "kopf"), ("worker", "ray")])
def test_sbom_lists_locked_and_debian_packages(
    image: str, package: str, operator_image: str, worker_image: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([image]) == 0  # a package that is not locked would be an error
    components = {it["name"]: it for it in json.loads(capfd.readouterr().out)["components"]}
    assert components[package]["version"] in locked((LOCKS / f"{image}.txt").read_text())[package]
    assert components["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")


def inspect(image: str) -> dict[str, Any]:
    command = [ROOT / "hack/images/inspect", image]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
    found: dict[str, Any] = json.loads(output)
    return found


@pytest.mark.parametrize(("image", "project_folder"), [("operator", "operator"), ("worker", "inference")])
def test_images_have_labels(image: str, project_folder: str, operator_image: str, worker_image: str) -> None:
    labels = inspect(image)["labels"]
    own = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    project = tomllib.loads((ROOT / project_folder / "pyproject.toml").read_text())["project"]
    assert (own["title"], own["licenses"]) == (f"ddpm-ray {image}", "Apache-2.0")
    assert own["version"] == project["version"]
    assert re.fullmatch(r"[0-9a-f]{40}", own["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", own["created"])
    assert own["base.name"]


def test_the_operators_image_is_small(operator_image: str) -> None:
    assert inspect("operator")["size"] < MAX_OPERATOR_SIZE
