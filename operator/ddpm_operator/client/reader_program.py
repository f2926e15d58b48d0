"""Runs in the reader pod: writes stored files to standard output, each preceded by its length as 8 bytes, big-endian.

It is passed to `python -c` in the pod, whose image has fsspec. Arguments: the path or URI of the output folder, then
the names of the files below it. It exits with code 44 if a file does not exist.
"""

import shutil
import sys

import fsspec

folder, *names = sys.argv[1:]
file_system, root = fsspec.url_to_fs(folder)
for name in names:
    try:
        sys.stdout.buffer.write(file_system.size(f"{root}/{name}").to_bytes(8, "big"))
        with file_system.open(f"{root}/{name}") as stored:
            shutil.copyfileobj(stored, sys.stdout.buffer, 1 << 20)
    except FileNotFoundError:
        print(f"{folder}/{name}", file=sys.stderr)
        sys.exit(44)
    except OSError as error:
        sys.exit(f"{folder}/{name}: {error}")
