"""The finished images, asked what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.images.sbom import locked, main

LOCKS = Path(__file__).resolve().parents[2] / "requirements"

pytestmark = pytest.mark.node


@pytest.mark.parametrize(("image", "package"), [("operator", "kopf"), ("worker", "ray")])
def test_the_bill_of_an_image_names_what_is_locked_and_debians_packages(
    image: str, package: str, operator_image: str, worker_image: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([image]) == 0  # anything that is not locked would have been an error
    components = {it["name"]: it for it in json.loads(capfd.readouterr().out)["components"]}
    assert components[package]["version"] in locked((LOCKS / f"{image}.txt").read_text())[package]
    assert components["libc6"]["purl"].startswith("pkg:deb/debian/libc6@")
