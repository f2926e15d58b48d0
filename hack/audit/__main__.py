"""`make audit`: known holes in all that is locked, in the finished images, and in the programs that tests run.

Every part says what it has looked at, by which database of which day, and what it could not look at. It fails if
what users get has a known hole, or was not looked at; of programs that only tests run it tells.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from hack.audit import debian, golang, pypi

LOCKS = Path(__file__).resolve().parents[2] / "requirements"


def main() -> int:
    with TemporaryDirectory() as folder:
        index_tells = pypi.index_tells_of_holes(Path(folder))
    looks = [
        *(pypi.look(lock, index_tells) for lock in sorted(LOCKS.glob("*.txt"))),
        *(debian.look(image) for image in ("worker", "operator")),
        golang.look(),
    ]
    print("\n".join(map(str, looks)))
    if failed := [look.what for look in looks if look.fails]:
        print(f"error: look at {'; '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
