"""Audits the Debian packages of the finished images against Debian's security archive.

It finds vulnerabilities that Debian has fixed, not those that are known but still open.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hack.audit.finding import Finding

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
DIGITS = re.compile(r"(\d+)")


def audit(image: str) -> Finding:
    """Audits an image of the project, which is built if needed."""
    packages = f"Debian packages of the {image} image"
    done = subprocess.run([ROOT / "hack/images/inventory", image], stdout=subprocess.PIPE, check=True)
    inventory = json.loads(done.stdout)
    suite = f"{inventory['system'].get('VERSION_CODENAME', '')}-security"
    lists = lists_of(suite)
    if not lists:
        return Finding(
            packages, not_checked=f"apt on this machine has no lists of {suite}; run this on that release of Debian"
        )
    texts = [_output("/usr/lib/apt/apt-helper", "cat-file", str(it)) for it in lists]
    return compare(packages, inventory["debian"], newest(texts), f"{suite} of {date_of(lists[0])}")


def compare(packages: str, installed: list[dict[str, Any]], fixed: dict[str, str], database: str) -> Finding:
    """Reports the installed packages of which the archive has a newer version."""
    vulnerabilities = [
        f"{it['name']} {it['version']} (of {it['source']}): fixed in {fixed[it['name']]}"
        for it in installed
        if it["name"] in fixed and older(it["version"], fixed[it["name"]])
    ]
    return Finding(packages, len(installed), database, tuple(vulnerabilities))


def lists_of(suite: str) -> list[Path]:
    """Returns apt's package lists of a suite, updated if possible."""
    try:
        subprocess.run(["apt-get", "update", "--quiet=2"], check=False, stdout=subprocess.DEVNULL)
        names = _output(*TARGETS, f"Codename: {suite}").split()
    except FileNotFoundError:
        return []
    return [Path(name) for name in names if Path(name).exists()]


def date_of(packages: Path) -> str:
    """Returns the date of the release to which a package list belongs."""
    release = packages.with_name(re.sub(r"_[^_]+_binary-.*", "_InRelease", packages.name))
    found = re.search(r"^Date: (.*)$", release.read_text(), re.MULTILINE) if release.exists() else None
    return found[1] if found else "an unknown date"


def newest(lists: Iterable[str]) -> dict[str, str]:
    """Returns name -> newest version of the packages in package lists of Debian's archive."""
    found: dict[str, str] = {}
    for stanza in (it for text in lists for it in text.split("\n\n")):
        fields = dict(re.findall(r"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        name, version = fields.get("Package"), fields.get("Version")
        if name and version and (name not in found or older(found[name], version)):
            found[name] = version
    return found


def older(version: str, other: str) -> bool:
    """Whether a version sorts before another (Debian Policy 5.6.12)."""
    return _sort_key(version) < _sort_key(other)


class _Part(str):
    """The upstream version or the Debian revision, ordered as dpkg does."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        for position, pair in enumerate(zip_longest(DIGITS.split(self), DIGITS.split(other), fillvalue="")):
            left, right = (int(it or 0) for it in pair) if position % 2 else map(_weights, pair)
            if left != right:
                return left < right  # type: ignore[operator] - both are numbers, or both tuples
        return False


def _weights(text: str) -> tuple[int, ...]:
    """Returns the sort weights of non-digits: ~ before the end, the end before letters, letters before the rest."""
    return *(-1 if it == "~" else ord(it) if it.isalpha() else ord(it) + 256 for it in text), 0


def _sort_key(version: str) -> tuple[int, _Part, _Part]:
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch or 0), _Part(upstream), _Part(revision)


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
