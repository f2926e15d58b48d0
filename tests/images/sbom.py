"""The software bill of materials of an image's Python: `python tests/images/sbom.py worker > worker.cdx.json`.

CycloneDX 1.6 from the hashed lock, which is all that pip and uv put into the image. What the base image brings, an
image scanner tells (`syft IMAGE`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ("worker", "operator")
PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> Iterator[dict[str, Any]]:
    """A lock's packages, each with the hashes of all files that may be installed for it."""
    found = list(PINNED.finditer(lock))
    ends = [*(match.start() for match in found[1:]), len(lock)]
    for match, end in zip(found, ends, strict=True):
        name = re.sub(r"[-_.]+", "-", match[1]).lower()
        purl = f"pkg:pypi/{name}@{match[2].replace('+', '%2B')}"
        hashes = [{"alg": "SHA-256", "content": digest} for digest in HASH.findall(lock, match.end(), end)]
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": name,
            "version": match[2],
            "purl": purl,
            # One package has many files, for many machines; its own hash would be that of one.
            "externalReferences": [
                {"type": "distribution", "url": f"https://pypi.org/project/{name}/{match[2]}/", "hashes": hashes}
            ],
        }


def bill(image: str) -> dict[str, Any]:
    """The document of one image."""
    version = re.search(
        r'^version = "(.+)"$', _text("inference" if image == "worker" else "operator"), re.MULTILINE
    )
    assert version, "the distribution has no version"
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "container", "name": f"ddpm-ray-{image}", "version": version[1]},
        },
        "components": list(components((ROOT / "requirements" / f"{image}.txt").read_text())),
    }


def _text(half: str) -> str:
    return (ROOT / half / "pyproject.toml").read_text()


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in IMAGES:
        print(f"usage: python tests/images/sbom.py {'|'.join(IMAGES)}", file=sys.stderr)
        return 2
    print(json.dumps(bill(arguments[0]), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
