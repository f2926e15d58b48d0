"""The manifest that `fetch` checks the output against."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ddpm_operator.client.errors import Damaged
from ddpm_operator.client.output_manifest import OutputManifest, StoredFile, is_whole

SHARD = {"first": 0, "last": 15, "bytes": 3, "sha256": "a" * 64}


def manifest_of(files: dict[str, object]) -> OutputManifest:
    text = json.dumps({"version": 1, "n_samples": 16, "shards": [SHARD], "files": files, "more": 1}).encode()
    return OutputManifest.parse(text, hashlib.sha256(text).hexdigest())


def test_shards_are_wanted_without_samples_npy() -> None:
    file = {"bytes": 3, "sha256": "b" * 64}
    assert [it.path for it in manifest_of({"samples.npy": file, "grid.png": file}).wanted] == [
        "grid.png",
        "samples.npy",
    ]
    assert [it.path for it in manifest_of({"grid.png": file}).wanted] == [
        "grid.png",
        "shards/000000000-000000015.npz",
    ]


def test_a_manifest_with_another_sha256_is_rejected() -> None:
    with pytest.raises(Damaged, match="the status says 0000"):
        OutputManifest.parse(b"{}", "0" * 64)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".profile", "a/b", ""])
def test_a_file_name_outside_the_folder_is_rejected(name: str) -> None:
    with pytest.raises(Damaged):
        manifest_of({name: {"bytes": 3, "sha256": "b" * 64}})


def test_a_file_is_whole_with_its_length_and_sha256(tmp_path: Path) -> None:
    path = tmp_path / "grid.png"
    file = StoredFile("grid.png", 3, hashlib.sha256(b"abc").hexdigest())
    results = []
    for data in (b"abc", b"abx", b"abcd"):
        path.write_bytes(data)
        results.append(is_whole(path, file))
    assert (is_whole(tmp_path / "no", file), results) == (False, [True, False, False])
