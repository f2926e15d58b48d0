"""The bill of materials names everything that an image holds, and what is not locked is no bill."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from hack.images import inventory
from hack.images.sbom import OWN, NotLocked, bill, locked, main

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
OPENSSL = {
    **{"name": "libssl3", "version": "3.0.22-1~deb12u2", "architecture": "amd64", "licences": ["Apache-2.0"]},
    **{"source": "openssl", "source_version": "3.0.22-1~deb12u2"},
}


def lock(image: str) -> str:
    return (ROOT / "requirements" / f"{image}.txt").read_text()


def held(image: str) -> dict[str, Any]:
    """What an image of all that is locked tells of itself."""
    names = {name: next(iter(versions)) for name, versions in locked(lock(image)).items()} | {OWN[image][0]: "1.0"}
    python = [{"name": name, "version": it, "licence": "MIT", "trove": []} for name, it in names.items()]
    return {"system": SYSTEM, "python": python, "debian": [OPENSSL]}


@pytest.mark.parametrize("image", OWN)
def test_every_package_of_the_image_is_named_once_with_the_version_found_there(image: str) -> None:
    there = held(image)
    components = bill(image, there, lock(image))["components"]
    named = [(it["name"], it["version"]) for it in components]
    found = [(it["name"], it["version"]) for it in (*there["python"], *there["debian"])]
    assert sorted(named) == sorted([*found, ("debian", "12")])
    assert len({it["bom-ref"] for it in components}) == len(components)


def test_a_package_of_the_lock_has_its_hashes_and_one_of_debian_its_source() -> None:
    components = {it["name"]: it for it in bill("worker", held("worker"), lock("worker"))["components"]}
    (versions,) = [locked(lock("worker"))["ray"]]
    hashes = [it["content"] for it in components["ray"]["externalReferences"][0]["hashes"]]
    assert hashes == versions[components["ray"]["version"]] != []
    assert components["libssl3"]["purl"].startswith("pkg:deb/debian/libssl3@3.0.22-1~deb12u2?arch=amd64")
    assert "upstream=openssl%40" in components["libssl3"]["purl"]
    assert components["libssl3"]["licenses"] == [{"license": {"name": "Apache-2.0"}}]


def test_a_package_that_is_not_locked_is_no_bill() -> None:
    there = held("operator")
    there["python"].append({"name": "stowaway", "version": "6.6.6", "licence": None, "trove": []})
    with pytest.raises(NotLocked, match=r"stowaway 6\.6\.6 \(locked: no\)"):
        bill("operator", there, lock("operator"))


def test_another_version_than_the_locked_one_is_no_bill() -> None:
    changed = lock("operator").replace("kopf==", "kopf==0.0.1 # ")
    with pytest.raises(NotLocked, match=r"kopf .* \(locked: 0\.0\.1\)"):
        bill("operator", held("operator"), changed)


def test_an_image_without_the_program_itself_is_no_bill() -> None:
    there = held("worker")
    there["python"] = [it for it in there["python"] if it["name"] != "ddpm-inference"]
    with pytest.raises(NotLocked, match="it lacks ddpm-inference"):
        bill("worker", there, lock("worker"))


def test_the_inventory_names_every_package_that_this_python_can_import() -> None:
    found = {it["name"]: it["version"] for it in inventory.python()}
    for package in ("torch", "ray", "kopf", "ddpm-inference"):
        assert found[package] == importlib.metadata.version(package)


def test_another_image_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["driver"]) == 2
    assert "worker|operator" in capsys.readouterr().err
