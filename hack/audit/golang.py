"""Audits the Go programs that tests run, with govulncheck and Go's vulnerability database, which is a Go module."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hack.audit.finding import Finding

NODE = Path(__file__).resolve().parents[1] / "node"
DATABASE = "golang.org/x/vulndb"
PACKAGES = "Go programs of hack/node"
NON_SPACE = re.compile(r"\S")
LIST_GROUPS = """
source lib/say.sh && source lib/settings.sh && source lib/programs.sh
for group in $(program_groups); do echo "$group $(program_bin "$group")"; done
"""


def audit() -> Finding:
    """Audits every program that is built; reports the groups that are not."""
    try:
        newest = json.loads(_output("go", "mod", "download", "-json", f"{DATABASE}@latest"))
        checker = Path(_output(str(NODE / "build"), "govulncheck").strip()) / "govulncheck"
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return Finding(PACKAGES, not_checked=f"Go or its database {DATABASE} is not available: {error}", ships=False)
    groups = [line.split() for line in _output("bash", "-euc", LIST_GROUPS, cwd=NODE).splitlines()]
    programs = [program for _, folder in groups for program in sorted(Path(folder).glob("*"))]
    vulnerabilities = merged(
        {
            it.name: _output(
                str(checker),
                "-mode",
                "binary",
                "-format",
                "json",
                "-db",
                f"file://{newest['Dir']}/data/osv",
                str(it),
            )
            for it in programs
        }
    )
    missing = [name for name, folder in groups if not Path(folder).exists()]
    not_checked = f"not built here: {', '.join(missing)}" if missing else ""
    date = newest["Version"].split("-")[1][:8]
    return Finding(PACKAGES, len(programs), f"{DATABASE} of {date}", vulnerabilities, not_checked, ships=False)


def merged(reports: dict[str, str]) -> tuple[str, ...]:
    """Returns a line for each module version of which a program contains a vulnerable function.

    Args:
        reports: program -> the JSON output of govulncheck.
    """
    vulnerabilities: dict[tuple[str, str], set[str]] = {}
    programs: dict[tuple[str, str], set[str]] = {}
    for program, report in reports.items():
        for finding in (it["finding"] for it in documents(report) if "finding" in it):
            at = finding["trace"][0]
            if "function" in at:
                module = at["module"], at["version"]
                fixed = finding.get("fixed_version", "no version yet")
                vulnerabilities.setdefault(module, set()).add(f"{finding['osv']} (fixed in {fixed})")
                programs.setdefault(module, set()).add(program)
    return tuple(
        f"{name} {version} in {', '.join(sorted(programs[name, version]))}: {', '.join(sorted(ids))}"
        for (name, version), ids in sorted(vulnerabilities.items())
    )


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Yields the JSON documents of a text that contains several."""
    decoder, end = json.JSONDecoder(), 0
    while start := NON_SPACE.search(text, end):
        document, end = decoder.raw_decode(text, start.start())
        yield document


def _output(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd).stdout
