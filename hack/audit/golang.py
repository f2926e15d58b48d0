"""The Go programs that tests run, by govulncheck and Go's own database, which comes as a Go module."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hack.audit.look import Look

NODE = Path(__file__).resolve().parents[1] / "node"
DATABASE = "golang.org/x/vulndb"
WHAT = "Go programs of hack/node"
BLACK = re.compile(r"\S")
BUILT = """
source lib/say.sh && source lib/settings.sh && source lib/programs.sh
for group in $(program_groups); do echo "$group $(program_bin "$group")"; done
"""


def look() -> Look:
    """Every program that is built; which are not is told."""
    try:
        newest = json.loads(_says("go", "mod", "download", "-json", f"{DATABASE}@latest"))
        checker = Path(_says(str(NODE / "build"), "govulncheck").strip()) / "govulncheck"
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        return Look(WHAT, unseen=f"Go, or its database {DATABASE}, is not to be had: {error}", ships=False)
    groups = [line.split() for line in _says("bash", "-euc", BUILT, cwd=NODE).splitlines()]
    programs = [program for _, folder in groups for program in sorted(Path(folder).glob("*"))]
    holes = merged(
        {
            it.name: _says(
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
    unseen = f"not built here: {', '.join(missing)}" if missing else ""
    day = newest["Version"].split("-")[1][:8]
    return Look(WHAT, len(programs), f"{DATABASE} of {day}", holes, unseen, ships=False)


def merged(answers: dict[str, str]) -> tuple[str, ...]:
    """Modules of which a vulnerable function is in a program, each version once.

    Args:
        answers: program -> what govulncheck said of it, as JSON.
    """
    holes: dict[tuple[str, str], set[str]] = {}
    programs: dict[tuple[str, str], set[str]] = {}
    for program, answer in answers.items():
        for finding in (it["finding"] for it in documents(answer) if "finding" in it):
            at = finding["trace"][0]
            if "function" in at:
                module = at["module"], at["version"]
                fixed = finding.get("fixed_version", "nothing yet")
                holes.setdefault(module, set()).add(f"{finding['osv']} (mended in {fixed})")
                programs.setdefault(module, set()).add(program)
    return tuple(
        f"{name} {version} in {', '.join(sorted(programs[name, version]))}: {', '.join(sorted(found))}"
        for (name, version), found in sorted(holes.items())
    )


def documents(text: str) -> Iterator[dict[str, Any]]:
    """JSON documents, one after the other."""
    decoder, end = json.JSONDecoder(), 0
    while start := BLACK.search(text, end):
        document, end = decoder.raw_decode(text, start.start())
        yield document


def _says(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd).stdout
