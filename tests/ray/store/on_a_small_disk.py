"""Run by test_disk.py, in a mount namespace of its own: usage: on_a_small_disk.py full|read-only FOLDER.

FOLDER is a small tmpfs. Prints, as JSON, the failures a user would have seen and what was stored at each.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ddpm_inference.errors import StorageFailed
from ddpm_inference.job import shards_of
from ddpm_inference.store import Store
from tests.support.storing import an_identity, run, write_shards

IDENTITY = an_identity(img_size=28)
N_SAMPLES = 80


def failing(store: Store, folder: Path) -> dict[str, object]:
    """A run that must fail, and what is there after it."""
    try:
        run(store, IDENTITY, N_SAMPLES)
    except StorageFailed as failure:
        records, warnings = store.scan(IDENTITY)
        partial = [str(path) for path in folder.rglob("*.partial")]
        return {
            "message": failure.message,
            "hint": failure.hint,
            "whole": len(records),
            "warnings": warnings,
            "partial": partial,
        }
    raise AssertionError("nothing failed")


def full(store: Store, folder: Path) -> dict[str, object]:
    """The disk is full among the shards, then at samples.npy; then there is room."""
    failures = []
    for ballast in (850, 600):
        (folder / "ballast").write_bytes(bytes(ballast * 1024))
        failures.append(failing(store, folder))
    (folder / "ballast").unlink()
    manifest = run(store, IDENTITY, N_SAMPLES)
    return {"failures": failures, "finished": store.complete_manifest(IDENTITY, N_SAMPLES) == manifest}


def read_only(store: Store, folder: Path) -> dict[str, object]:
    """Turns the disk read-only after two shards."""
    store.initialize(IDENTITY, overwrite=False)
    write_shards(store, IDENTITY, list(shards_of(16, 8)))
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    return {"failures": [failing(store, folder)]}


if __name__ == "__main__":
    act = {"full": full, "read-only": read_only}[sys.argv[1]]
    place = Path(sys.argv[2])
    print(json.dumps(act(Store.open(str(place / "out")), place)))
