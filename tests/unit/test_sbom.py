"""The bill of materials names everything that is locked, and nothing else is in an image's Python."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from tests.images.sbom import IMAGES, bill, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("image", IMAGES)
def test_every_locked_package_is_named_once_with_its_version_and_every_hash(image: str) -> None:
    lock = (ROOT / "requirements" / f"{image}.txt").read_text()
    components = bill(image)["components"]
    named = [it["purl"] for it in components]
    assert len(named) == len(set(named)) == len(re.findall(r"^\S+==", lock, re.MULTILINE))
    hashes = [digest["content"] for it in components for digest in it["externalReferences"][0]["hashes"]]
    assert hashes == re.findall(r"sha256:([0-9a-f]{64})", lock)
    assert all(it["externalReferences"][0]["hashes"] for it in components)


@pytest.mark.parametrize(("image", "package"), [("worker", "ray"), ("worker", "torch"), ("operator", "kopf")])
def test_it_tells_the_versions_that_run(image: str, package: str) -> None:
    (found,) = [it for it in bill(image)["components"] if it["name"] == package]
    assert found["version"].partition("+")[0] == importlib.metadata.version(package).partition("+")[0]


def test_another_image_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["driver"]) == 2
    assert "worker|operator" in capsys.readouterr().err
