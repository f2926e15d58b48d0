"""The software bill of materials of an image: `python -m hack.images.sbom worker > worker.cdx.json`.

CycloneDX 1.6 of what is in the finished image, asked of itself: Debian's packages and Python's, with versions and
licences. Python's are held against the hashed lock: a package that is not locked, or another version of one, is no
bill but an error. `python -m hack.images.sbom --check FILE…` holds bills against CycloneDX's own schema.
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
OWN = {"worker": ("ddpm-inference", "inference"), "operator": ("ddpm-operator", "operator")}
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

Inventory = dict[str, Any]
"""What inventory.py tells."""


class NotLocked(Exception):
    """The image holds what its lock does not."""


def locked(lock: str) -> dict[str, dict[str, list[str]]]:
    """name -> version, of which each Python may have its own -> the hashes of the files that may be installed."""
    found = list(PINNED.finditer(lock))
    ends = [*(match.start() for match in found[1:]), len(lock)]
    pins: dict[str, dict[str, list[str]]] = {}
    for match, end in zip(found, ends, strict=True):
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        pins.setdefault(name, {})[match[2]] = HASH.findall(lock, match.end(), end)
    return pins


def bill(image: str, inventory: Inventory, lock: str) -> dict[str, Any]:
    """The document of one image.

    Raises:
        NotLocked: naming the packages of the image's Python that are not those of the lock.
    """
    own, pins = OWN[image][0], locked(lock)
    found = {it["name"]: it for it in inventory["python"]}
    strange = [
        f"{name} {it['version']} (locked: {', '.join(pins.get(name, ())) or 'no'})"
        for name, it in found.items()
        if name != own and it["version"] not in pins.get(name, ())
    ]
    if strange or own not in found:
        what = ", ".join(sorted(strange)) or f"it lacks {own}"
        raise NotLocked(f"the image of the {image} is not what requirements/{image}.txt locks: {what}")
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
        # One package has many files, for many machines; its own hash would be that of one.
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


def objections(document: str) -> str | None:
    """What CycloneDX's schema has against a bill; None if nothing."""
    # Of requirements/security.txt, which `make sbom` installs and tests do without.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    return None if error is None else str(error).partition("\n")[0]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--check", *files] if files:
            wrong = {file: found for file in files if (found := objections(Path(file).read_text()))}
            for file, found in wrong.items():
                print(f"{file} is no CycloneDX 1.6: {found}", file=sys.stderr)
            return 1 if wrong else 0
        case [image] if image in OWN:
            said = subprocess.run([ROOT / "hack/images/inventory", image], stdout=subprocess.PIPE, check=True)
            try:
                document = bill(image, json.loads(said.stdout), (ROOT / "requirements" / f"{image}.txt").read_text())
            except NotLocked as error:
                print(f"{error}\n  build it again: hack/images/build {image}", file=sys.stderr)
                return 1
            print(json.dumps(document, indent=1))
            return 0
    print(f"usage: python -m hack.images.sbom {'|'.join(OWN)}, or --check FILE…", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
