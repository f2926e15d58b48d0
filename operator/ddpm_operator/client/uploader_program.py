"""Runs in the uploader pod: writes standard input to a file, which appears complete or not at all.

It is passed to `python -c` in the pod, so it imports only the standard library. Arguments: a folder, the file's path
below it, its length in bytes, and its sha256. It reads exactly that many bytes and does not need the end of standard
input. At the start, after every mebibyte and at the end it prints the number of bytes received so far on a line. If the
file already exists, it prints the whole length at once and reads nothing.
"""

import hashlib
import sys
from pathlib import Path

CHUNK_BYTES = 1 << 20


def main(root: Path, name: str, length: int, sha256: str) -> None:
    if name.startswith("/") or {"", ".", ".."}.intersection(name.split("/")):
        sys.exit(f"{name!r} is not a path below a folder")
    path = root / name
    partial = path.with_name(f".{path.name}.part")
    try:
        for folder in reversed(path.relative_to(root).parents[:-1]):
            (root / folder).mkdir(exist_ok=True)
        if not is_whole(path, length, sha256):
            receive(partial, length)
            if not is_whole(partial, length, sha256):
                sys.exit("the sha256 does not match: the file changed during the upload")
            partial.replace(path)
        print(length, flush=True)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    finally:
        partial.unlink(missing_ok=True)


def is_whole(path: Path, length: int, sha256: str) -> bool:
    if not path.is_file() or path.stat().st_size != length:
        return False
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def receive(partial: Path, length: int) -> None:
    with partial.open("wb") as file:
        for received in range(0, length, CHUNK_BYTES):
            print(received, flush=True)
            chunk = sys.stdin.buffer.read(min(CHUNK_BYTES, length - received))
            if len(chunk) < min(CHUNK_BYTES, length - received):
                sys.exit(f"received only {received + len(chunk)} of {length} bytes")
            file.write(chunk)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
