"""The folder backend: the storage contract, permissions, and failed or interrupted writes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ddpm_inference.errors import StorageFailed
from ddpm_inference.job import shards_of
from ddpm_inference.store import Store
from tests.support.store_contract import StoreContract
from tests.support.storing import an_identity, run, samples_of, write_shards

OURS = an_identity()


class TestFolder(StoreContract):
    @pytest.fixture
    def uri(self, tmp_path: Path) -> str:
        return str(tmp_path / "deep" / "out")


def test_workers_do_not_write_to_a_folder(tmp_path: Path) -> None:
    assert not Store.open(str(tmp_path)).writable_by_workers


def test_opening_a_store_creates_nothing(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "out"))
    store.read_identity()
    store.scan(OURS)
    assert list(tmp_path.iterdir()) == []


def test_an_alias_is_a_hard_link(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("grid.png", b"one")
    store.link_or_copy("grid.png", "alias.png")
    assert (tmp_path / "alias.png").samefile(tmp_path / "grid.png")


def test_an_alias_is_a_copy_where_links_are_refused(readable_folder: Path) -> None:
    # The kernel refuses hard links to files of other users without write permission.
    store = Store.open(str(readable_folder))
    store.write_bytes("grid.png", b"png")
    readable_folder.chmod(0o777)
    with without_root():
        store.link_or_copy("grid.png", "alias.png")
    assert (readable_folder / "alias.png").read_bytes() == b"png"


def test_results_have_the_default_file_mode(tmp_path: Path) -> None:
    run(Store.open(str(tmp_path)), OURS, 8)
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {stat.S_IMODE((tmp_path / "plain").stat().st_mode)}


def test_partial_files_are_ignored_then_removed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.initialize(OURS, overwrite=False)
    write_shards(store, OURS, list(shards_of(20, 8)))
    partials = [
        tmp_path / ".samples.npy.0a1b2c3d.partial",
        tmp_path / "shards/.000000000-000000007.npz.00ff00ff.partial",
    ]
    for path in partials:
        path.write_bytes(b"half")
    foreign = [tmp_path / ".hidden", tmp_path / ".download.partial"]
    for path in foreign:
        path.touch()
    assert store.scan(OURS).warnings == []
    store.initialize(OURS, overwrite=False)
    assert not any(path.exists() for path in partials)
    assert all(path.exists() for path in foreign)


def _write_shards_endlessly(store: Store, identity_batch: int) -> None:
    identity = an_identity(batch_size=identity_batch, img_size=28)
    for shard in shards_of(10**6, identity_batch):
        store.write_shard(shard, samples_of(shard, identity) / 10**6, identity.fingerprint)


@pytest.mark.slow
def test_a_killed_writer_leaves_only_intact_shards(tmp_path: Path) -> None:
    batch = 512
    identity = an_identity(batch_size=batch, img_size=28)
    for attempt in range(8):
        store = Store.open(str(tmp_path / str(attempt)))
        store.initialize(identity, overwrite=False)
        writer = multiprocessing.get_context("fork").Process(target=_write_shards_endlessly, args=(store, batch))
        writer.start()
        deadline = time.monotonic() + 30
        while len(store.backend.sizes("shards")) < 1 + attempt % 3:
            assert time.monotonic() < deadline, "the writer writes nothing"
            assert writer.is_alive()
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        records, warnings = store.scan(identity)
        assert warnings == []
        assert [record.shard for record in records] == list(shards_of(batch * len(records), batch))


@pytest.fixture
def readable_folder() -> Iterator[Path]:
    """A folder that every user may read, and only its owner may write to."""
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def without_root() -> Iterator[None]:
    """Drops root's privileges, if the tests run as root."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)


def test_a_read_only_folder_is_named_and_kept(readable_folder: Path) -> None:
    store = Store.open(str(readable_folder))
    store.initialize(OURS, overwrite=False)
    shards = list(shards_of(20, 8))
    records = write_shards(store, OURS, shards[:2])
    (readable_folder / "shards").chmod(0o555)
    message = r"shards/000000016-000000019\.npz could not be written: user id"
    with without_root():
        with pytest.raises(StorageFailed, match=message) as failure:
            write_shards(store, OURS, shards[2:])
        assert "another output URI" in failure.value.hint
        assert store.scan(OURS) == (records, [])
    (readable_folder / "shards").chmod(0o755)
    assert len(run(store, OURS, 20).shards) == 3


def test_a_failed_write_leaves_no_files(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    small = run(store, OURS, 20)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    with pytest.raises(StorageFailed, match="could not be written: File too large"):
        run(store, OURS, 40)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.complete_manifest(OURS, 20) == small
    assert {path.name for path in tmp_path.rglob("*")} == {
        *("job.json", "manifest.json", "samples.npy", "shards"),
        *(shard.name for shard in shards_of(20, 8)),
    }
    run(store, OURS, 40)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageFailed, match=r"out/job\.json could not be read: a part of the path is a file"):
        Store.open(str(tmp_path / "out")).initialize(OURS, overwrite=False)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "grid.png").mkdir()
    with pytest.raises(StorageFailed, match=r"grid\.png could not be written: a folder is in the way"):
        Store.open(str(tmp_path)).write_bytes("grid.png", b"png")
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
