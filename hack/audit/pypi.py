"""Audits the locks of Python packages with pip-audit, which asks PyPI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.audit.finding import Finding

# Known as vulnerable since January 2024 (CVE-2024-22195). A mirror that does not report it reports no vulnerabilities.
KNOWN_VULNERABLE = ("jinja2", "3.1.2")
SHIPPED = ("worker", "operator")
NO_VULNERABILITIES = (
    f"the package index here reports no vulnerabilities, not even those of {' '.join(KNOWN_VULNERABLE)}; "
    "run this with access to PyPI itself"
)


def audit(lock: Path, index_has_vulnerabilities: bool) -> Finding:
    """Audits a lock.

    Args:
        index_has_vulnerabilities: result of the function of that name; if false, the lock is not looked up.
    """
    packages, ships = f"requirements/{lock.name}", lock.stem in SHIPPED
    if not index_has_vulnerabilities:
        return Finding(packages, not_checked=NO_VULNERABILITIES, ships=ships)
    return to_finding(packages, ships, _pip_audit("--require-hashes", "-r", str(lock)))


def to_finding(packages: str, ships: bool, dependencies: Sequence[dict[str, Any]]) -> Finding:
    """Converts the `dependencies` of pip-audit's output."""
    skipped = [f"{it['name']}: {it['skip_reason']}" for it in dependencies if "skip_reason" in it]
    vulnerabilities = [
        f"{it['name']} {it['version']}: {' '.join([vulnerability['id'], *vulnerability['aliases']])}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'none yet'}"
        for it in dependencies
        for vulnerability in it.get("vulns", ())
    ]
    return Finding(
        packages, len(dependencies) - len(skipped), "PyPI, now", tuple(vulnerabilities), "; ".join(skipped), ships
    )


def index_has_vulnerabilities(folder: Path) -> bool:
    """Whether the package index reports a known vulnerability; mirrors may not."""
    known = folder / "known.txt"
    known.write_text("==".join(KNOWN_VULNERABLE))
    return bool(to_finding("", False, _pip_audit("--no-deps", "-r", str(known))).vulnerabilities)


def _pip_audit(*arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--format", "json", *arguments]
    # pip-audit exits with 1 both for vulnerabilities and for errors, but prints a document only for the former.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise RuntimeError(f"pip-audit failed: {done.stderr.strip()}")
    dependencies: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return dependencies
