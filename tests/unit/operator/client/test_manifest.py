"""What a manifest says of the files that are fetched."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.manifest import Manifest, StoredFile, is_whole

SHARD = {"first": 0, "last": 15, "bytes": 3, "sha256": "a" * 64}


def read(files: dict[str, object]) -> Manifest:
    text = json.dumps({"version": 1, "n_samples": 16, "shards": [SHARD], "files": files, "more": 1}).encode()
    return Manifest.read(text, hashlib.sha256(text).hexdigest())


def test_the_shards_come_where_there_is_no_samples_npy() -> None:
    file = {"bytes": 3, "sha256": "b" * 64}
    assert [one.path for one in read({"samples.npy": file, "grid.png": file}).wanted] == [
        "grid.png",
        "samples.npy",
    ]
    assert [one.path for one in read({"grid.png": file}).wanted] == [
        "grid.png",
        "shards/000000000-000000015.npz",
    ]


def test_another_manifest_than_the_status_names_is_refused() -> None:
    with pytest.raises(Damaged, match="the status says 0000"):
        Manifest.read(b"{}", "0" * 64)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".profile", "a/b", ""])
def test_a_file_outside_the_folder_is_refused(name: str) -> None:
    with pytest.raises(Damaged):
        read({name: {"bytes": 3, "sha256": "b" * 64}})


def test_a_file_is_whole_only_with_its_length_and_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    file = StoredFile("grid.png", 3, hashlib.sha256(b"abc").hexdigest())
    found = []
    for data in (b"abc", b"abd", b"abcd"):
        path.write_bytes(data)
        found.append(is_whole(path, file))
    assert (is_whole(tmp_path / "no", file), found) == (False, [True, False, False])
