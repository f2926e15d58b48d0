"""Runs in the reader pod: hashes every file that the stored manifest lists, and reports in lines of JSON.

It is passed to `python -P -c` in the pod, whose image has fsspec. Arguments: the path or URI of the output folder, and
the sha256 of the manifest. Only a manifest with this sha256 is followed. The lines are ``{"done": bytes, "total":
bytes}`` while it hashes, ``{"file": name, "problem": text}`` for each damaged file, and at the end ``{"samples": N,
"files": count}``.
"""

import hashlib
import json
import sys
from collections.abc import Iterator

import fsspec

CHUNK_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 256 << 20

folder, expected = sys.argv[1:]
file_system, root = fsspec.url_to_fs(folder)
done = total = 0


def tell(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def chunks(name: str) -> Iterator[bytes]:
    with file_system.open(f"{root}/{name}") as stored:
        while chunk := stored.read(CHUNK_BYTES):
            yield chunk


def problem_of(name: str, size: int, sha256: str) -> str | None:
    """Returns what is wrong with a file, or None if it has the size and the sha256 of the manifest."""
    global done
    digest, length = hashlib.sha256(), 0
    try:
        for chunk in chunks(name):
            digest.update(chunk)
            length += len(chunk)
            done += len(chunk)
            tell(done=done, total=total)
            if length > size:
                return f"is larger than the {size} bytes of the manifest"
    except FileNotFoundError:
        return "is missing"
    if length != size:
        return f"has {length} bytes, not the {size} of the manifest"
    return None if digest.hexdigest() == sha256 else "has another sha256 than in the manifest"


def main() -> None:
    global total
    try:
        if file_system.size(f"{root}/manifest.json") > MAX_MANIFEST_BYTES:
            return tell(file="manifest.json", problem="is larger than any manifest")
        text = b"".join(chunks("manifest.json"))
    except FileNotFoundError:
        return tell(file="manifest.json", problem="is missing")
    if hashlib.sha256(text).hexdigest() != expected:
        return tell(file="manifest.json", problem="has another sha256 than in the status")
    manifest = json.loads(text)
    files = [(f"shards/{it['first']:09d}-{it['last']:09d}.npz", it) for it in manifest["shards"]]
    files += sorted(manifest["files"].items())
    total = sum(record["bytes"] for _, record in files)
    for name, record in files:
        problem = problem_of(name, record["bytes"], record["sha256"])
        if problem:
            tell(file=name, problem=problem)
    return tell(samples=manifest["n_samples"], files=len(files))


try:
    main()
except OSError as error:
    sys.exit(f"{folder}: {error}")
