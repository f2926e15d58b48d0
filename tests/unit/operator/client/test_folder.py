"""The user's folder: one version of the samples, or none that says it is one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ddpm_operator.client.folder import Folder
from ddpm_operator.client.manifest import Manifest

Files = dict[str, bytes]


def manifest_of(files: Files, shards: dict[tuple[int, int], bytes] | None = None) -> tuple[Manifest, bytes, str]:
    listed = {name: _entry(data) for name, data in files.items()}
    of_shards = [{"first": a, "last": b, **_entry(data)} for (a, b), data in (shards or {}).items()]
    text = json.dumps({"version": 1, "n_samples": 1, "shards": of_shards, "files": listed}).encode()
    sha256 = hashlib.sha256(text).hexdigest()
    return Manifest.read(text, sha256), text, sha256


def _entry(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def stage(folder: Folder, manifest: Manifest, contents: Files) -> None:
    for file in manifest.wanted:
        if file.path in contents:
            with folder.staging(file) as written:
                written.write(contents[file.path])


def found_in(path: Path) -> Files:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


OLD: Files = {"samples.npy": b"old", "grid.png": b"old picture"}
NEW: Files = {"samples.npy": b"new and longer", "grid.png": b"new picture"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with the old version, and something of the user's own."""
    path = tmp_path / "digits"
    folder = Folder(path)
    manifest, text, _ = manifest_of(OLD)
    stage(folder, manifest, OLD)
    folder.settle(manifest, text)
    (path / "notes.txt").write_bytes(b"mine")
    return path


def test_all_of_the_old_version_stays_until_all_of_the_new_one_has_come(path: Path) -> None:
    before = found_in(path)
    folder = Folder(path)
    manifest, text, sha256 = manifest_of(NEW)
    stage(folder, manifest, {"samples.npy": NEW["samples.npy"]})
    assert {name: data for name, data in found_in(path).items() if not name.startswith(".")} == before

    assert [file.path for file in Folder(path).whole(manifest)] == ["samples.npy"]
    stage(folder, manifest, {"grid.png": NEW["grid.png"]})
    folder.settle(manifest, text)
    assert found_in(path) == {**NEW, "manifest.json": text, "notes.txt": b"mine"}
    assert folder.manifest(sha256) == manifest
    assert {one.name for one in path.iterdir()} == {*NEW, "manifest.json", "notes.txt"}


def test_a_file_that_does_not_come_whole_leaves_nothing(path: Path) -> None:
    before = found_in(path)
    folder = Folder(path)
    manifest, _, _ = manifest_of(NEW)

    def bring_half() -> None:
        with folder.staging(manifest.wanted[0]) as written:
            written.write(b"half")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        bring_half()
    assert found_in(path) == before
    assert not (path / ".fetch").exists()


def test_no_manifest_is_here_while_files_change_places(path: Path) -> None:
    folder = Folder(path)
    manifest, text, sha256 = manifest_of(NEW)
    stage(folder, manifest, NEW)
    (path / "samples.npy").unlink()
    (path / "samples.npy").mkdir()
    with pytest.raises(OSError, match=r"samples\.npy"):
        folder.settle(manifest, text)
    assert not (path / "manifest.json").exists()
    (path / "samples.npy").rmdir()
    folder = Folder(path)
    assert len(folder.whole(manifest)) == 2
    folder.settle(manifest, text)
    assert folder.manifest(sha256) == manifest


def test_files_that_the_new_version_does_not_have_go(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    folder = Folder(path)
    for shards in ({(0, 15): b"a", (16, 19): b"short"}, {(0, 15): b"a", (16, 31): b"longer"}):
        manifest, text, _ = manifest_of({}, shards)
        stage(folder, manifest, {f"shards/{a:09d}-{b:09d}.npz": data for (a, b), data in shards.items()})
        folder.settle(manifest, text)
    assert sorted(found_in(path)) == [
        "manifest.json",
        "shards/000000000-000000015.npz",
        "shards/000000016-000000031.npz",
    ]
