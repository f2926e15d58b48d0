"""Damage to the files of a complete job: what a run notices, what only hashing everything notices, and what is ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ddpm_inference.store import Store
from ddpm_inference.store.folder import Folder
from ddpm_inference.store.manifest import Manifest
from ddpm_inference.store.verified import VERIFIED
from tests.support.storing import an_identity, run

OURS = an_identity()
SHARD = "shards/000000008-000000015.npz"
COPY = "ray_samples_20261123-1200_all.npy"


@dataclass(frozen=True)
class RecordingFolder(Folder):
    """A folder that records the names of the files whose content is read."""

    reads: list[str] = field(default_factory=list)

    def read_each(self, names: Iterator[str], max_bytes: int) -> Iterator[bytes | None]:
        for name in names:
            self.reads.append(name)
            yield self.read(name, max_bytes)

    def read_range(self, name: str, start: int, length: int) -> bytes | None:
        self.reads.append(name)
        return super().read_range(name, start, length)


@dataclass
class Place:
    """A complete job in a folder, verified when it was written."""

    path: Path
    manifest: Manifest

    @property
    def store(self) -> Store:
        return Store.open(str(self.path))

    def flip(self, name: str, *, keep_time: bool = False) -> None:
        """Flips one bit in the middle of a file."""
        path = self.path / name
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        with path.open("r+b") as file:
            file.write(content)
        # The clock of a file system is coarse: without this the time might be the same by chance.
        changed = before.st_mtime_ns + (0 if keep_time else 1_000_000)
        os.utime(path, ns=(before.st_atime_ns, changed))

    def damaged(self, *, hash_all: bool = False) -> list[tuple[str, str]]:
        return [(file.name, file.problem) for file in self.store.inspect(self.manifest, hash_all=hash_all).damaged]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    path = tmp_path / "out"
    store = Store.open(str(path))
    manifest = run(store, OURS, 20)
    store.write_verified(manifest, ())
    return Place(path, manifest)


BAD_SHA256 = "is damaged: its sha256 is not that of the manifest"


@pytest.mark.parametrize("name", [SHARD, "samples.npy"])
def test_a_flipped_bit_is_found(place: Place, name: str) -> None:
    assert place.damaged() == []
    place.flip(name)
    assert place.damaged() == [(name, BAD_SHA256)]


@pytest.mark.parametrize("name", [SHARD, "samples.npy"])
def test_a_bit_that_rots_is_found_when_all_is_hashed(place: Place, name: str) -> None:
    place.flip(name, keep_time=True)
    assert place.damaged() == []
    assert place.damaged(hash_all=True) == [(name, BAD_SHA256)]


@pytest.mark.parametrize("name", [SHARD, "samples.npy"])
def test_missing_and_cut_files_are_found(place: Place, name: str) -> None:
    path = place.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    size = len(content)
    assert place.damaged() == [(name, f"is damaged: it has {size - 1:,} bytes, not the {size:,} of the manifest")]
    path.unlink()
    assert place.damaged() == [(name, "is missing")]


def test_shards_are_listed_before_files(place: Place) -> None:
    for name in ("samples.npy", "shards/000000016-000000019.npz", SHARD):
        place.flip(name)
    assert [name for name, _ in place.damaged()] == [SHARD, "shards/000000016-000000019.npz", "samples.npy"]


def test_only_changed_files_are_read(place: Place) -> None:
    recording = RecordingFolder(place.path)
    assert Store(recording).inspect(place.manifest, hash_all=False).hashed == 0
    assert recording.reads == []
    os.utime(place.path / SHARD, ns=(1, 1))
    assert Store(recording).inspect(place.manifest, hash_all=False) == ([], 1)
    assert recording.reads == [SHARD]


@pytest.mark.parametrize("content", [None, b"{", b'{"version": 9}', b"[]", b'{"files": {}}' + b" " * 2**21])
def test_without_a_valid_record_every_file_is_hashed(place: Place, content: bytes | None) -> None:
    (place.path / VERIFIED).unlink()
    if content is not None:
        (place.path / VERIFIED).write_bytes(content)
    place.flip(SHARD, keep_time=True)
    assert place.damaged() == [(SHARD, BAD_SHA256)]


def test_a_record_of_other_content_is_not_trusted(place: Place) -> None:
    place.flip(SHARD)
    record = json.loads((place.path / VERIFIED).read_text())
    record["files"][SHARD]["version"] = str((place.path / SHARD).stat().st_mtime_ns)
    record["files"][SHARD]["sha256"] = "0" * 64
    (place.path / VERIFIED).write_text(json.dumps(record))
    assert place.damaged() == [(SHARD, BAD_SHA256)]


def test_the_record_is_no_part_of_the_manifest(place: Place, tmp_path: Path) -> None:
    other = Store.open(str(tmp_path / "other"))
    run(other, OURS, 20)
    assert (tmp_path / "other" / "manifest.json").read_bytes() == (place.path / "manifest.json").read_bytes()


def test_a_record_that_cannot_be_written_is_no_error(place: Place) -> None:
    (place.path / VERIFIED).unlink()
    (place.path / VERIFIED).mkdir()
    place.store.write_verified(place.manifest, ())
    assert place.damaged() == []


def test_recorded_copies_are_ours(place: Place) -> None:
    (place.path / COPY).write_bytes(b"of a shorter run")
    assert place.store.dated_copies() == set()
    place.store.write_verified(place.manifest, [COPY])
    assert place.store.dated_copies() == {COPY}


@pytest.mark.parametrize("linked", [True, False])
def test_copies_equal_to_the_output_are_ours(place: Place, *, linked: bool) -> None:
    """Earlier versions recorded none."""
    (place.path / VERIFIED).unlink()
    if linked:
        (place.path / COPY).hardlink_to(place.path / "samples.npy")
    else:
        (place.path / COPY).write_bytes((place.path / "samples.npy").read_bytes())
    assert place.store.dated_copies() == {COPY}


def test_a_copy_of_another_program_is_not_ours(place: Place) -> None:
    content = bytearray((place.path / "samples.npy").read_bytes())
    content[-1] ^= 1
    (place.path / COPY).write_bytes(content)
    assert place.store.dated_copies() == set()


@pytest.mark.parametrize("name", ["job.json", "../job.json", "notes.txt", f"{COPY}\n", f"x/{COPY}"])
def test_a_record_cannot_have_other_files_removed(place: Place, name: str) -> None:
    record = json.loads((place.path / VERIFIED).read_text())
    (place.path / VERIFIED).write_text(json.dumps({**record, "copies": [name]}))
    assert place.store.dated_copies() == set()


def test_overwrite_removes_the_dated_copies_and_the_record(place: Place) -> None:
    (place.path / COPY).write_bytes((place.path / "samples.npy").read_bytes())
    (place.path / "ray_samples_20261123-1300_all.npy").write_bytes(b"of another program")
    place.store.initialize(an_identity(seed=1), overwrite=True)
    left = {path.name for path in place.path.iterdir() if path.is_file()}
    assert left == {"job.json", "ray_samples_20261123-1300_all.npy"}


def test_a_lost_job_json_is_recovered_from_the_manifest(place: Place) -> None:
    job = place.path / "job.json"
    intact = job.read_bytes()
    for damaged in (b"{", intact.replace(b'"seed": 0', b'"seed": 2'), None):
        job.unlink() if damaged is None else job.write_bytes(damaged)
        assert place.store.recover_identity() == OURS
        assert place.store.restore_identity(OURS)
        assert job.read_bytes() == intact
    assert not place.store.restore_identity(OURS)


def test_kept_samples_are_counted_by_what_is_stored(place: Place) -> None:
    count = place.store.count_samples
    assert count(OURS, 20) == 20
    (place.path / SHARD).write_bytes(b"cut")
    assert count(OURS, 20) == 12
    (place.path / SHARD).unlink()
    assert count(OURS, 20) == 12
    assert count(OURS, 40) == 8
