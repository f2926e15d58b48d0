"""Writes the software bill of materials (SBOM) of an image: `python -m hack.images.sbom worker > worker.cdx.json`.

The format is CycloneDX 1.6. It lists the Debian and Python packages installed in the image, with versions and licences.
A Python package that is not in the hashed lock, or has another version, is an error.
`python -m hack.images.sbom --check FILE…` validates SBOMs against the schema of CycloneDX.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {"worker": ("ddpm-inference", "inference"), "operator": ("ddpm-operator", "operator")}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Inventory = dict[str, Any]
"""The output of inventory.py."""


class NotLocked(Exception):
    """The image contains Python packages that its lock does not."""


def locked(lock: str) -> dict[str, dict[str, list[str]]]:
    """Returns name -> version -> SHA-256 of its files. Markers may select different versions for different Pythons."""
    found = list(PINNED.finditer(lock))
    ends = [*(match.start() for match in found[1:]), len(lock)]
    pins: dict[str, dict[str, list[str]]] = {}
    for match, end in zip(found, ends, strict=True):
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        pins.setdefault(name, {})[match[2]] = HASH.findall(lock, match.end(), end)
    return pins


def sbom(image: str, inventory: Inventory, lock: str) -> dict[str, Any]:
    """Returns the SBOM of one image.

    Raises:
        NotLocked: names the Python packages of the image that are not in the lock.
    """
    own, pins = PROJECTS[image][0], locked(lock)
    found = {it["name"]: it for it in inventory["python"]}
    unlocked = [
        f"{name} {it['version']} ({'locked: ' + ', '.join(pins[name]) if name in pins else 'not locked'})"
        for name, it in found.items()
        if name != own and it["version"] not in pins.get(name, ())
    ]
    if unlocked or own not in found:
        problem = ", ".join(sorted(unlocked)) or f"{own} is missing"
        raise NotLocked(f"the {image} image does not match requirements/{image}.txt: {problem}")
    system = inventory["system"]
    python = [_python(it, pins.get(name, {}).get(it["version"], [])) for name, it in sorted(found.items())]
    debian = [_debian(it, system) for it in sorted(inventory["debian"], key=lambda it: it["name"])]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": f"ddpm-ray-{image}", "version": found[own]["version"]}},
        "components": [
            {
                "type": "operating-system",
                "bom-ref": "os",
                "name": system["ID"],
                "version": system["VERSION_ID"],
                "description": system["PRETTY_NAME"],
            },
            *python,
            *debian,
        ],
    }


def _python(package: dict[str, Any], hashes: list[str]) -> dict[str, Any]:
    name, version = package["name"], package["version"]
    purl = f"pkg:pypi/{name}@{quote(version)}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if package["licence"]:
        component["licenses"] = [{"expression": package["licence"]}]
    elif package["trove"]:
        component["licenses"] = [{"license": {"name": it.removeprefix("License :: ")}} for it in package["trove"]]
    if hashes:
        # A version has one file per platform; the lock has the hashes of all.
        digests = [{"alg": "SHA-256", "content": digest} for digest in hashes]
        url = f"https://pypi.org/project/{name}/{version}/"
        component["externalReferences"] = [{"type": "distribution", "url": url, "hashes": digests}]
    return component


def _debian(package: dict[str, Any], system: dict[str, str]) -> dict[str, Any]:
    name, version, architecture = package["name"], package["version"], package["architecture"]
    distro = f"{system['ID']}-{system['VERSION_ID']}"
    source = quote(f"{package['source']}@{package['source_version']}", safe="")
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro={distro}&upstream={source}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if package["licences"]:
        component["licenses"] = [{"license": {"name": it}} for it in package["licences"]]
    return component


def schema_error(document: str) -> str | None:
    """Returns how an SBOM violates the schema of CycloneDX; None if it is valid."""
    # From requirements/security.txt, which `make sbom` installs; tests do not need it.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    return None if error is None else str(error).partition("\n")[0]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--check", *files] if files:
            errors = {file: error for file in files if (error := schema_error(Path(file).read_text()))}
            for file, error in errors.items():
                print(f"{file} is not valid CycloneDX 1.6: {error}", file=sys.stderr)
            return 1 if errors else 0
        case [image] if image in PROJECTS:
            done = subprocess.run([ROOT / "hack/images/inventory", image], stdout=subprocess.PIPE, check=True)
            try:
                document = sbom(image, json.loads(done.stdout), (ROOT / "requirements" / f"{image}.txt").read_text())
            except NotLocked as error:
                print(f"{error}\n  rebuild it: hack/images/build {image}", file=sys.stderr)
                return 1
            print(json.dumps(document, indent=1))
            return 0
    print(f"usage: python -m hack.images.sbom {'|'.join(PROJECTS)}, or --check FILE…", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
