"""What runs in the reader pod, whose image has fsspec: writes stored files to standard output, one after another,
each after its length as eight bytes, the highest first.

It is handed to the pod as text. Its arguments are the folder's path or URI, and the files' names below it. It ends
with the exit code 44 if one is not there.
"""

import shutil
import sys

import fsspec

folder, *names = sys.argv[1:]
store, root = fsspec.url_to_fs(folder)
for name in names:
    try:
        sys.stdout.buffer.write(store.size(f"{root}/{name}").to_bytes(8, "big"))
        with store.open(f"{root}/{name}") as stored:
            shutil.copyfileobj(stored, sys.stdout.buffer, 1 << 20)
    except FileNotFoundError:
        print(f"{folder}/{name}", file=sys.stderr)
        sys.exit(44)
    except OSError as error:
        sys.exit(f"{folder}/{name}: {error}")
