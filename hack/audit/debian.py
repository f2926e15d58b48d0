"""Debian's packages of the finished images, by what its security archive has that they lack.

So it tells of holes that Debian has mended, not of those that are known and open.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hack.audit.look import Look

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
DIGITS = re.compile(r"(\d+)")


def look(image: str) -> Look:
    """An image of the project, which is built if need be."""
    what = f"Debian's packages in the image of the {image}"
    said = subprocess.run([ROOT / "hack/images/inventory", image], stdout=subprocess.PIPE, check=True)
    inventory = json.loads(said.stdout)
    suite = f"{inventory['system'].get('VERSION_CODENAME', '')}-security"
    lists = lists_of(suite)
    if not lists:
        return Look(what, unseen=f"apt of this machine does not know {suite}. Run this on that Debian")
    texts = [_says("/usr/lib/apt/apt-helper", "cat-file", str(it)) for it in lists]
    return held_against(what, inventory["debian"], newest(texts), f"{suite} of {date_of(lists[0])}")


def held_against(what: str, there: list[dict[str, Any]], mended: dict[str, str], database: str) -> Look:
    """Those packages of which there is a newer one."""
    holes = [
        f"{it['name']} {it['version']} (of {it['source']}): mended in {mended[it['name']]}"
        for it in there
        if it["name"] in mended and older(it["version"], mended[it["name"]])
    ]
    return Look(what, len(there), database, tuple(holes))


def lists_of(suite: str) -> list[Path]:
    """apt's lists of what a suite has, as new as they can be had."""
    try:
        subprocess.run(["apt-get", "update", "--quiet=2"], check=False, stdout=subprocess.DEVNULL)
        named = _says(*TARGETS, f"Codename: {suite}").split()
    except FileNotFoundError:
        return []
    return [Path(name) for name in named if Path(name).exists()]


def date_of(packages: Path) -> str:
    """When Debian signed the release that a list belongs to."""
    release = packages.with_name(re.sub(r"_[^_]+_binary-.*", "_InRelease", packages.name))
    found = re.search(r"^Date: (.*)$", release.read_text(), re.MULTILINE) if release.exists() else None
    return found[1] if found else "an unknown day"


def newest(lists: Iterable[str]) -> dict[str, str]:
    """name -> the newest version of it in lists of packages, as Debian's archive has them."""
    found: dict[str, str] = {}
    for stanza in (it for text in lists for it in text.split("\n\n")):
        fields = dict(re.findall(r"^(Package|Version): (.*)$", stanza, re.MULTILINE))
        name, version = fields.get("Package"), fields.get("Version")
        if name and version and (name not in found or older(found[name], version)):
            found[name] = version
    return found


def older(one: str, other: str) -> bool:
    """Whether one version comes before another (Debian Policy 5.6.12)."""
    return _order(one) < _order(other)


class _Part(str):
    """The upstream or Debian's part of a version, ordered as dpkg does."""

    __slots__ = ()

    def __lt__(self, other: str) -> bool:
        for position, pair in enumerate(zip_longest(DIGITS.split(self), DIGITS.split(other), fillvalue="")):
            mine, its = (int(it or 0) for it in pair) if position % 2 else map(_weights, pair)
            if mine != its:
                return mine < its  # type: ignore[operator] - both are numbers, or both tuples
        return False


def _weights(text: str) -> tuple[int, ...]:
    """Of what is no digit: ~ before the end, the end before letters, letters before the rest."""
    return *(-1 if it == "~" else ord(it) if it.isalpha() else ord(it) + 256 for it in text), 0


def _order(version: str) -> tuple[int, _Part, _Part]:
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch or 0), _Part(upstream), _Part(revision)


def _says(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
