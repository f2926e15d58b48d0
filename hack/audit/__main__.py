"""`make audit`: known vulnerabilities of the locks, of the finished images, and of the Go programs that tests run.

Each part reports what it looked up, the database and its date, and what it could not look up. The audit fails if a
package that users get is vulnerable or was not looked up; vulnerabilities of programs that only tests run are reported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.audit import debian, golang, pypi

LOCKS = Path(__file__).resolve().parents[2] / "requirements"


def main() -> int:
    with TemporaryDirectory() as folder:
        index_has_vulnerabilities = pypi.index_has_vulnerabilities(Path(folder))
    findings = [
        *(pypi.audit(lock, index_has_vulnerabilities) for lock in sorted(LOCKS.glob("*.txt"))),
        *(debian.audit(image) for image in ("worker", "operator")),
        golang.audit(),
    ]
    print("\n".join(map(str, findings)))
    if failed := [finding.packages for finding in findings if finding.fails]:
        print(f"error: vulnerable or not checked: {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
