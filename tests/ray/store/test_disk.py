"""Full and read-only disks: real file systems, mounted in a mount namespace that ends with the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.s3 import ROOT

PROGRAM = Path(__file__).with_name("on_a_small_disk.py")


def on_a_small_disk(action: str, folder: Path) -> dict[str, Any]:
    """Runs the program with a file system of 1 MiB mounted at a folder; returns the JSON it printed."""
    # Other users than root may mount only in a user namespace of their own.
    namespace = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    mount = 'mount -t tmpfs -o size=1m none "$2"'
    done = subprocess.run(
        [
            "unshare",
            *namespace,
            "sh",
            "-c",
            f'{mount} && exec "$0" "$3" "$1" "$2"',
            sys.executable,
            action,
            folder,
            PROGRAM,
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_full_disk_is_named_and_the_run_resumes(tmp_path: Path) -> None:
    result = on_a_small_disk("full", tmp_path)
    among_shards, at_npy = result["failures"]
    for failure in (among_shards, at_npy):
        assert "could not be written: the disk is full" in failure["message"]
        assert "free some space there, then run the same command again" in failure["hint"]
        assert failure["warnings"] == failure["partial"] == []
    assert f"{tmp_path}/out/shards/" in among_shards["message"]
    assert 0 < among_shards["whole"] < 10
    assert f"{tmp_path}/out/samples.npy" in at_npy["message"]
    assert at_npy["whole"] == 10
    assert result["finished"]


def test_a_read_only_disk_is_named_and_readable(tmp_path: Path) -> None:
    result = on_a_small_disk("read-only", tmp_path)
    [failure] = result["failures"]
    assert "shards/000000016-000000023.npz could not be written: the file system is read-only" in failure["message"]
    assert "another output URI" in failure["hint"]
    assert failure["whole"] == 2
