"""The local folder of `fetch`: one complete version of the samples, or no manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ddpm_operator.client.download_folder import DownloadFolder
from ddpm_operator.client.output_manifest import OutputManifest

Files = dict[str, bytes]


def manifest_of(files: Files, shards: dict[tuple[int, int], bytes] | None = None) -> tuple[OutputManifest, bytes, str]:
    file_records = {name: record(data) for name, data in files.items()}
    shard_records = [{"first": a, "last": b, **record(data)} for (a, b), data in (shards or {}).items()]
    text = json.dumps({"version": 1, "n_samples": 1, "shards": shard_records, "files": file_records}).encode()
    sha256 = hashlib.sha256(text).hexdigest()
    return OutputManifest.parse(text, sha256), text, sha256


def record(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def stage(folder: DownloadFolder, manifest: OutputManifest, contents: Files) -> None:
    for file in manifest.wanted:
        if file.path in contents:
            with folder.staging(file) as stream:
                stream.write(contents[file.path])


def files_in(path: Path) -> Files:
    return {str(it.relative_to(path)): it.read_bytes() for it in path.rglob("*") if it.is_file()}


OLD: Files = {"samples.npy": b"old", "grid.png": b"old picture"}
NEW: Files = {"samples.npy": b"new and longer", "grid.png": b"new picture"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with the old version and a file of the user."""
    path = tmp_path / "digits"
    folder = DownloadFolder(path)
    manifest, text, _ = manifest_of(OLD)
    stage(folder, manifest, OLD)
    folder.settle(manifest, text)
    (path / "notes.txt").write_bytes(b"mine")
    return path


def test_the_old_version_stays_until_the_new_one_is_complete(path: Path) -> None:
    before = files_in(path)
    folder = DownloadFolder(path)
    manifest, text, sha256 = manifest_of(NEW)
    stage(folder, manifest, {"samples.npy": NEW["samples.npy"]})
    assert {name: data for name, data in files_in(path).items() if not name.startswith(".")} == before

    assert [file.path for file in DownloadFolder(path).whole(manifest)] == ["samples.npy"]
    stage(folder, manifest, {"grid.png": NEW["grid.png"]})
    folder.settle(manifest, text)
    assert files_in(path) == {**NEW, "manifest.json": text, "notes.txt": b"mine"}
    assert folder.manifest(sha256) == manifest
    assert {it.name for it in path.iterdir()} == {*NEW, "manifest.json", "notes.txt"}


def test_an_interrupted_file_leaves_nothing(path: Path) -> None:
    before = files_in(path)
    folder = DownloadFolder(path)
    manifest, _, _ = manifest_of(NEW)

    def download_half() -> None:
        with folder.staging(manifest.wanted[0]) as stream:
            stream.write(b"half")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        download_half()
    assert files_in(path) == before
    assert not (path / ".fetch").exists()


def test_an_interrupted_settle_leaves_no_manifest(path: Path) -> None:
    folder = DownloadFolder(path)
    manifest, text, sha256 = manifest_of(NEW)
    stage(folder, manifest, NEW)
    (path / "samples.npy").unlink()
    (path / "samples.npy").mkdir()
    with pytest.raises(OSError, match=r"samples\.npy"):
        folder.settle(manifest, text)
    assert not (path / "manifest.json").exists()
    (path / "samples.npy").rmdir()
    folder = DownloadFolder(path)
    assert len(folder.whole(manifest)) == 2
    folder.settle(manifest, text)
    assert folder.manifest(sha256) == manifest


def test_files_missing_from_the_new_version_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    folder = DownloadFolder(path)
    for shards in ({(0, 15): b"a", (16, 19): b"short"}, {(0, 15): b"a", (16, 31): b"longer"}):
        manifest, text, _ = manifest_of({}, shards)
        stage(folder, manifest, {f"shards/{a:09d}-{b:09d}.npz": data for (a, b), data in shards.items()})
        folder.settle(manifest, text)
    assert sorted(files_in(path)) == [
        "manifest.json",
        "shards/000000000-000000015.npz",
        "shards/000000016-000000031.npz",
    ]
