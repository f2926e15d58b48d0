"""The finished images, asked what they hold and what they say of themselves."""

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
OPERATOR_AT_MOST = 350_000_000  # bytes, unpacked; it is pulled before anything else can run

pytestmark = [pytest.mark.node, pytest.mark.draws_nothing]


@pytest.mark.parametrize(("image", "package"), [("operator", "kopf"), ("worker", "ray")])
def test_the_bill_of_an_image_names_what_is_locked_and_debians_packages(
    image: str, package: str, operator_image: str, worker_image: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([image]) == 0  # anything that is not locked would have been an error
    components = {it["name"]: it for it in json.loads(capfd.readouterr().out)["components"]}
    assert components[package]["version"] in locked((LOCKS / f"{image}.txt").read_text())[package]
    assert components["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")


def inspected(image: str) -> dict[str, Any]:
    command = [ROOT / "hack/images/inspect", image]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600).stdout
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.mark.parametrize(("image", "half"), [("operator", "operator"), ("worker", "inference")])
def test_an_image_is_labelled_with_what_it_is_of_and_when_it_was_made(
    image: str, half: str, operator_image: str, worker_image: str
) -> None:
    labels = inspected(image)["labels"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    project = tomllib.loads((ROOT / half / "pyproject.toml").read_text())["project"]
    assert (said["title"], said["licenses"]) == (f"ddpm-ray {image}", "Apache-2.0")
    assert said["version"] == project["version"]
    assert re.fullmatch(r"[0-9a-f]{40}", said["revision"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["created"])
    assert said["base.name"]


def test_the_operators_image_is_small(operator_image: str) -> None:
    assert inspected("operator")["size"] < OPERATOR_AT_MOST
