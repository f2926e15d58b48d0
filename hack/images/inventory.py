"""Prints the packages of an image as JSON. Runs inside the image, with Python's standard library only.

Debian packages come from dpkg, with the licences of their copyright files; Python packages from their metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

FIELDS = ("name", "version", "architecture", "source", "source_version", "status")
FORMAT = r"${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\t${db:Status-Status}\n"
LICENCE = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)


def debian_packages() -> list[dict[str, object]]:
    listed = subprocess.run(["dpkg-query", "-W", "-f", FORMAT], capture_output=True, text=True, check=True).stdout
    packages = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in listed.splitlines()]
    return [it | {"licences": debian_licences(it["name"])} for it in packages if it.pop("status") == "installed"]


def debian_licences(package: str) -> list[str]:
    """Returns the short names of its licences; empty if the copyright file has the old, free-form format."""
    file = Path("/usr/share/doc", package, "copyright")
    return sorted(set(LICENCE.findall(file.read_text(errors="replace")))) if file.exists() else []


def python_packages() -> list[dict[str, object]]:
    return [
        {
            "name": re.sub(r"[-_.]+", "-", found.name).lower(),
            "version": found.version,
            "licence": found.metadata.get("License-Expression"),
            "trove": [it for it in found.metadata.get_all("Classifier", []) if it.startswith("License :: ")],
        }
        for found in importlib.metadata.distributions()
    ]


if __name__ == "__main__":
    document = {
        "system": platform.freedesktop_os_release(),
        "python_version": platform.python_version(),
        "debian": debian_packages(),
        "python": python_packages(),
    }
    json.dump(document, sys.stdout)
