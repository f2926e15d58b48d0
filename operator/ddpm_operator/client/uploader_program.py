"""What runs in the uploader pod: writes what comes on standard input to a file, which appears whole or not at all.

It is handed to the pod as text. Its arguments are the file's path, its length in bytes and its sha256; it needs no
end of standard input. At the beginning, whenever a mebibyte has come, and at the end, it says on a line how many
bytes it has. If the file is there already it has them all at once, and reads nothing.
"""

import hashlib
import sys
from pathlib import Path

AT_ONCE = 1 << 20


def main(path: Path, length: int, sha256: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        if not is_whole(path, length, sha256):
            receive(partial, length)
            if not is_whole(partial, length, sha256):
                sys.exit("what came is another file: it was changed meanwhile")
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
        for come in range(0, length, AT_ONCE):
            print(come, flush=True)
            piece = sys.stdin.buffer.read(min(AT_ONCE, length - come))
            if len(piece) < min(AT_ONCE, length - come):
                sys.exit(f"only {come + len(piece)} bytes of {length} came")
            file.write(piece)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
