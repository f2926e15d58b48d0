"""Python's packages, by what PyPI says of them to pip-audit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.audit.look import Look

# It has a hole since January 2024 (CVE-2024-22195). An index that does not tell of it tells of none.
KNOWN = ("jinja2", "3.1.2")
SHIPPED = ("worker", "operator")
DEAF = (
    f"the index that answers here tells no vulnerabilities, not even {KNOWN[0]} {KNOWN[1]}'s. "
    "Run this where PyPI itself answers"
)


def look(lock: Path, index_tells: bool) -> Look:
    """A lock of hashed packages.

    Args:
        index_tells: what `index_tells_of_holes` said; an index that is deaf is not asked once a package.
    """
    what, ships = f"requirements/{lock.name}", lock.stem in SHIPPED
    if not index_tells:
        return Look(what, unseen=DEAF, ships=ships)
    return told(what, ships, _ask("--require-hashes", "-r", str(lock)))


def told(what: str, ships: bool, answers: Sequence[dict[str, Any]]) -> Look:
    """pip-audit's `dependencies` as a look."""
    skipped = [f"{it['name']}: {it['skip_reason']}" for it in answers if "skip_reason" in it]
    holes = [
        f"{it['name']} {it['version']}: {' '.join([hole['id'], *hole['aliases']])}, "
        f"fixed in {', '.join(hole['fix_versions']) or 'none yet'}"
        for it in answers
        for hole in it.get("vulns", ())
    ]
    return Look(what, len(answers) - len(skipped), "PyPI, now", tuple(holes), "; ".join(skipped), ships)


def index_tells_of_holes(folder: Path) -> bool:
    """Whether the index knows a hole that is known."""
    known = folder / "known.txt"
    known.write_text("==".join(KNOWN))
    return bool(told("", False, _ask("--no-deps", "-r", str(known))).holes)


def _ask(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--format", "json", *arguments]
    # It ends with 1 both for a hole and for an error; only the first comes with a document.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"pip-audit said: {done.stderr.strip()}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return answers
