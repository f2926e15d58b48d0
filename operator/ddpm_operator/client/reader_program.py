"""What runs in the reader pod, whose image has fsspec: writes stored files to standard output, one after another.

It is handed to the pod as text. Its arguments are the folder's path or URI, and the files' names below it.
"""

import shutil
import sys

import fsspec

folder, *names = sys.argv[1:]
for name in names:
    try:
        with fsspec.open(f"{folder}/{name}") as stored:
            shutil.copyfileobj(stored, sys.stdout.buffer, 1 << 20)
    except OSError as error:
        sys.exit(f"{folder}/{name}: {error}")
