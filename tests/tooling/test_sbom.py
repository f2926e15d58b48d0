"""The SBOM names every package of an image; packages that are not locked are an error."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from hack.images import inventory
from hack.images.sbom import PROJECTS, NotLocked, locked, main, sbom

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
OPENSSL = {
    **{"name": "libssl3", "version": "3.0.22-1~deb12u2", "architecture": "amd64", "licences": ["Apache-2.0"]},
    **{"source": "openssl", "source_version": "3.0.22-1~deb12u2"},
}


def lock(image: str) -> str:
    return (ROOT / "requirements" / f"{image}.txt").read_text()


def inventory_of(image: str) -> dict[str, Any]:
    """Returns the inventory of an image with exactly the locked packages."""
    names = {name: next(iter(versions)) for name, versions in locked(lock(image)).items()} | {PROJECTS[image][0]: "1.0"}
    python = [{"name": name, "version": it, "licence": "MIT", "trove": []} for name, it in names.items()]
    return {"system": SYSTEM, "python": python, "debian": [OPENSSL]}


@pytest.mark.parametrize("image", PROJECTS)
def test_every_installed_package_is_listed_once(image: str) -> None:
    contents = inventory_of(image)
    components = sbom(image, contents, lock(image))["components"]
    named = [(it["name"], it["version"]) for it in components]
    found = [(it["name"], it["version"]) for it in (*contents["python"], *contents["debian"])]
    assert sorted(named) == sorted([*found, ("debian", "12")])
    assert len({it["bom-ref"] for it in components}) == len(components)


def test_python_packages_have_hashes_and_debian_sources() -> None:
    components = {it["name"]: it for it in sbom("worker", inventory_of("worker"), lock("worker"))["components"]}
    (versions,) = [locked(lock("worker"))["ray"]]
    hashes = [it["content"] for it in components["ray"]["externalReferences"][0]["hashes"]]
    assert hashes == versions[components["ray"]["version"]] != []
    assert components["libssl3"]["purl"].startswith("pkg:deb/debian/libssl3@3.0.22-1~deb12u2?arch=amd64")
    assert "upstream=openssl%40" in components["libssl3"]["purl"]
    assert components["libssl3"]["licenses"] == [{"license": {"name": "Apache-2.0"}}]


def test_an_unlocked_package_is_an_error() -> None:
    contents = inventory_of("operator")
    contents["python"].append({"name": "stowaway", "version": "6.6.6", "licence": None, "trove": []})
    with pytest.raises(NotLocked, match=r"stowaway 6\.6\.6 \(not locked\)"):
        sbom("operator", contents, lock("operator"))


def test_an_unlocked_version_is_an_error() -> None:
    changed = lock("operator").replace("kopf==", "kopf==0.0.1 # ")
    with pytest.raises(NotLocked, match=r"kopf .* \(locked: 0\.0\.1\)"):
        sbom("operator", inventory_of("operator"), changed)


def test_an_image_without_the_project_is_an_error() -> None:
    contents = inventory_of("worker")
    contents["python"] = [it for it in contents["python"] if it["name"] != "ddpm-inference"]
    with pytest.raises(NotLocked, match="ddpm-inference is missing"):
        sbom("worker", contents, lock("worker"))


def test_inventory_lists_installed_packages() -> None:
    found = {it["name"]: it["version"] for it in inventory.python_packages()}
    for package in ("torch", "ray", "kopf", "ddpm-inference"):
        assert found[package] == importlib.metadata.version(package)


def test_an_unknown_image_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["driver"]) == 2
    assert "worker|operator" in capsys.readouterr().err
