"""Fills or locks a small disk during a run. Run by test_disk.py in its own mount namespace.

Usage: on_a_small_disk.py full|read-only FOLDER, where FOLDER is a small tmpfs. Prints as JSON the errors that a user
would see, and what was stored at each.
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


def failed_run(store: Store, folder: Path) -> dict[str, object]:
    """Runs a job that must fail; returns the error and what is stored after it."""
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
    raise AssertionError("the run did not fail")


def full(store: Store, folder: Path) -> dict[str, object]:
    """Fills the disk so that a shard fails, then so that samples.npy fails, then frees it."""
    failures = []
    for ballast in (850, 600):
        (folder / "ballast").write_bytes(bytes(ballast * 1024))
        failures.append(failed_run(store, folder))
    (folder / "ballast").unlink()
    manifest = run(store, IDENTITY, N_SAMPLES)
    return {"failures": failures, "finished": store.complete_manifest(IDENTITY, N_SAMPLES) == manifest}


def read_only(store: Store, folder: Path) -> dict[str, object]:
    """Makes the disk read-only after two shards."""
    store.initialize(IDENTITY, overwrite=False)
    write_shards(store, IDENTITY, list(shards_of(16, 8)))
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    return {"failures": [failed_run(store, folder)]}


if __name__ == "__main__":
    action = {"full": full, "read-only": read_only}[sys.argv[1]]
    folder = Path(sys.argv[2])
    print(json.dumps(action(Store.open(str(folder / "out")), folder)))
