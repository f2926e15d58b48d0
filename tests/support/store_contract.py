"""The contract of every storage backend. Test classes inherit it and define the fixture `uri`."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ddpm_inference.errors import OutputConflict, OutputInUse, StorageFailed, Superseded
from ddpm_inference.image_grid import thumbnail
from ddpm_inference.job import Shard, shards_of
from ddpm_inference.progress_server.thumbnail import MAX_PNG_BYTES, Thumbnail
from ddpm_inference.store import Manifest, Store, select
from ddpm_inference.store.lease import DEAD_AFTER_SECONDS
from ddpm_inference.store.lease_holder import Attempt
from tests.support.leases import FakeClock, a_driver, take
from tests.support.storing import an_identity, expected_samples, run, samples_of, stored_samples, write_shards

OURS = an_identity(seed=0)
OTHERS = an_identity(seed=1)
FIRST = Shard(first=0, last=7)
Damage = Callable[[bytes], bytes]
FIRST_FILE = "shards/000000000-000000007.npz"


def all_files(store: Store) -> set[str]:
    return {*store.backend.sizes(""), *(f"shards/{name}" for name in store.backend.sizes("shards"))}


class StoreContract:
    @pytest.fixture
    def store(self, uri: str) -> Store:
        return Store.open(uri)

    def test_an_empty_store_has_no_results(self, store: Store) -> None:
        assert store.read_identity() is None
        assert store.read_manifest() is None
        assert store.complete_manifest(OURS, 1) is None
        assert store.scan(OURS) == ([], [])

    def test_a_run_stores_only_the_documented_files(self, store: Store) -> None:
        run(store, OURS, 20)
        shards = {f"shards/{shard.name}" for shard in shards_of(20, 8)}
        assert all_files(store) == {"job.json", "manifest.json", "samples.npy", *shards}

    def test_the_manifest_accounts_for_every_sample_and_byte(self, store: Store) -> None:
        run(store, OURS, 20)
        manifest = store.read_manifest()
        assert manifest is not None
        assert (manifest.n_samples, manifest.shape, manifest.fingerprint) == (20, (1, 4, 4), OURS.fingerprint)
        for record in manifest.shards:
            data = store.backend.read(f"shards/{record.name}", 2**20)
            assert data is not None
            assert (len(data), hashlib.sha256(data).hexdigest()) == (record.bytes, record.sha256)
        np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))

    def test_manifest_sha256_is_of_the_stored_bytes(self, store: Store) -> None:
        with pytest.raises(StorageFailed, match=r"manifest\.json is missing"):
            store.manifest_sha256()
        sha256 = store.write_manifest(run(store, OURS, 20))
        data = store.backend.read("manifest.json", 2**20)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == store.manifest_sha256() == sha256

    def test_another_thread_can_render_the_thumbnail(self, store: Store) -> None:
        thumbnail_of_run = Thumbnail()
        thumbnail_of_run.add(store, run(store, OURS, 20).shards)
        with ThreadPoolExecutor(1) as pool:
            png = pool.submit(thumbnail_of_run.png, 0.0).result()
        assert png == thumbnail(samples_of(Shard(first=0, last=19), OURS), MAX_PNG_BYTES)

    def test_equal_jobs_store_equal_bytes_in_any_order(self, uri: str) -> None:
        one, other = Store.open(f"{uri}/one"), Store.open(f"{uri}/other")
        run(one, OURS, 20)
        other.initialize(OURS, overwrite=False)
        write_shards(other, OURS, list(shards_of(20, 8))[::-1])
        run(other, OURS, 20)
        for name in all_files(one):
            assert one.backend.read(name, 2**20) == other.backend.read(name, 2**20)

    def test_the_same_job_may_initialize_again(self, store: Store) -> None:
        store.initialize(OURS, overwrite=False)
        store.initialize(OURS, overwrite=False)
        assert store.read_identity() == OURS

    def test_another_job_is_refused_with_the_difference(self, store: Store) -> None:
        run(store, OURS, 20)
        before = {name: store.backend.read(name, 2**20) for name in all_files(store)}
        with pytest.raises(OutputConflict, match="seed: 1, there 0") as error:
            store.initialize(OTHERS, overwrite=False)
        assert store.uri in error.value.message
        assert all(way in error.value.hint for way in ("flags of that job", "another output URI", "--overwrite"))
        assert {name: store.backend.read(name, 2**20) for name in all_files(store)} == before

    def test_an_invalid_job_json_is_refused(self, store: Store) -> None:
        store.backend.write("job.json", b'{"version": 99}')
        with pytest.raises(OutputConflict, match=r"job\.json is not valid: .*version"):
            store.initialize(OURS, overwrite=False)

    def test_overwrite_removes_only_files_of_a_run(self, store: Store) -> None:
        run(store, OTHERS, 20)
        store.write_bytes("grid.png", b"png")
        foreign = {"notes.txt", "ray_samples_20261123-1200_all.npy", "shards/mine.npz"}
        for name in foreign:
            store.backend.write(name, b"keep")
        store.initialize(OURS, overwrite=True)
        assert all_files(store) == {"job.json", *foreign}
        assert store.read_identity() == OURS

    def test_foreign_files_are_kept(self, store: Store) -> None:
        store.backend.write("notes.txt", b"keep")
        store.backend.write("shards/mine.npz", b"keep")
        run(store, OURS, 20)
        assert store.backend.read("notes.txt", 2**20) == b"keep"
        assert store.backend.read("shards/mine.npz", 2**20) == b"keep"

    @pytest.mark.parametrize("name", ["samples.npy", "grid.png", "manifest.json", FIRST_FILE])
    def test_results_without_a_job_json_are_not_overwritten(self, store: Store, name: str) -> None:
        store.backend.write(name, b"unidentified")
        with pytest.raises(OutputConflict, match=name):
            store.initialize(OURS, overwrite=False)
        assert store.backend.read(name, 2**20) == b"unidentified"
        assert store.read_identity() is None

    def test_a_shard_written_again_keeps_its_first_bytes(self, store: Store) -> None:
        store.initialize(OURS, overwrite=False)
        first = store.write_shard(FIRST, samples_of(FIRST, OURS), OURS.fingerprint)
        other_bits = samples_of(FIRST, OURS) + np.float32(1e-6)
        assert store.write_shard(FIRST, other_bits, OURS.fingerprint) == first
        np.testing.assert_array_equal(store.read_shard(first), samples_of(FIRST, OURS))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: data[:-1],
            lambda data: b"",
            lambda data: data[:500] + b"\0" * 9,
            lambda data: data + bytes(2**16),
        ],
    )
    def test_a_damaged_shard_is_ignored_and_replaced(self, store: Store, damage: Damage) -> None:
        store.initialize(OURS, overwrite=False)
        [record] = write_shards(store, OURS, [FIRST])
        data = store.backend.read(FIRST_FILE, 2**20)
        assert data is not None
        store.backend.write(FIRST_FILE, damage(data))
        records, warnings = store.scan(OURS)
        assert records == []
        assert len(warnings) == 1
        assert FIRST_FILE in warnings[0]
        assert write_shards(store, OURS, [FIRST]) == [record]
        assert store.scan(OURS) == ([record], [])

    def test_reads_are_bounded(self, store: Store) -> None:
        store.backend.write("long", b"a" * 5000)
        assert store.backend.read("long", 5000) == b"a" * 5000
        assert store.backend.read("long", 4999) == b"a" * 5000
        assert store.backend.read("long", 100) == b"a" * 101
        assert list(store.backend.read_each(["long", "none"], 100)) == [b"a" * 101, None]

    def test_oversized_documents_are_invalid(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        for name in ("manifest.json", "job.json"):
            intact = store.backend.read(name, 2**20)
            assert intact is not None
            store.backend.write(name, intact + b" " * (2**20 + 2**12))
        assert store.read_manifest() is None
        assert store.complete_manifest(OURS, 20) is None
        with pytest.raises(
            OutputConflict, match=r"job\.json is not valid: it is larger than the maximum of 1,048,576 bytes"
        ):
            store.read_identity()
        store.backend.write("job.json", OURS.model_dump_json().encode())
        assert run(store, OURS, 20) == manifest

    def test_a_manifest_of_oversized_shards_is_incomplete(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        data = store.backend.read(FIRST_FILE, 2**20)
        assert data is not None
        store.backend.write(FIRST_FILE, data + bytes(2**16))
        first = manifest.shards[0].model_copy(update={"bytes": len(data) + 2**16})
        store.write_manifest(manifest.model_copy(update={"shards": (first, *manifest.shards[1:])}))
        assert store.complete_manifest(OURS, 20) is None
        assert run(store, OURS, 20) == manifest

    def test_a_shard_of_another_job_is_ignored_and_replaced(self, store: Store) -> None:
        store.initialize(OTHERS, overwrite=False)
        write_shards(store, OTHERS, [FIRST])
        store.backend.write("job.json", OURS.model_dump_json().encode())
        records, [warning] = store.scan(OURS)
        assert records == []
        assert "another job" in warning
        [record] = write_shards(store, OURS, [FIRST])
        np.testing.assert_array_equal(store.read_shard(record), samples_of(FIRST, OURS))

    def test_a_late_writer_of_an_earlier_job_is_refused(self, store: Store) -> None:
        run(store, OTHERS, 20)
        store.initialize(OURS, overwrite=True)
        manifest = run(store, OURS, 20)
        with pytest.raises(OutputConflict, match="overwritten by another job"):
            write_shards(store, OTHERS, [FIRST])
        np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))

    @pytest.mark.parametrize(
        "samples",
        [
            np.zeros((7, 1, 4, 4), np.float32),
            np.zeros((8, 1, 4, 4), np.float64),
            np.full((8, 1, 4, 4), 1.01, np.float32),
            np.full((8, 1, 4, 4), np.nan, np.float32),
        ],
        ids=["too few", "float64", "above 1", "nan"],
    )
    def test_invalid_samples_are_not_stored(self, store: Store, samples: np.ndarray) -> None:
        with pytest.raises(ValueError, match="samples 0 to 7 must"):
            store.write_shard(FIRST, samples, OURS.fingerprint)
        assert all_files(store) == set()

    def test_growth_samples_only_what_is_missing(self, store: Store) -> None:
        run(store, OURS, 20)
        usable, missing = select(store.scan(OURS).records, 40, 8)
        assert [(s.first, s.last) for s in usable] == [(0, 7), (8, 15)]
        assert [(s.first, s.last) for s in missing] == [(16, 23), (24, 31), (32, 39)]

    def test_a_superseded_shard_is_removed_after_the_manifest(self, store: Store) -> None:
        small = run(store, OURS, 20)
        write_shards(store, OURS, [Shard(first=16, last=23)])
        assert store.complete_manifest(OURS, 20) == small
        run(store, OURS, 24)
        assert sorted(store.backend.sizes("shards")) == [shard.name for shard in shards_of(24, 8)]

    def test_a_job_with_more_samples_is_complete(self, store: Store) -> None:
        large = run(store, OURS, 40)
        assert run(store, OURS, 20) == large
        assert store.read_manifest() == large

    def test_a_smaller_run_keeps_shards_of_a_larger_one(self, store: Store) -> None:
        store.initialize(OURS, overwrite=False)
        large = write_shards(store, OURS, list(shards_of(40, 8))[:4])
        small = run(store, OURS, 20)
        np.testing.assert_array_equal(stored_samples(store, small), expected_samples(small))
        assert select(store.scan(OURS).records, 40, 8).usable == large

    @pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b""], ids=["shortened", "removed"])
    def test_a_job_with_a_missing_shard_is_incomplete(self, store: Store, damage: Damage) -> None:
        manifest = run(store, OURS, 20)
        data = store.backend.read(FIRST_FILE, 2**20)
        assert data is not None
        store.backend.remove([FIRST_FILE])
        if left := damage(data):
            store.backend.write(FIRST_FILE, left)
        assert store.complete_manifest(OURS, 20) is None
        assert run(store, OURS, 20) == manifest
        assert store.complete_manifest(OURS, 20) == manifest

    def test_an_invalid_manifest_counts_as_missing(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        store.backend.write("manifest.json", b"{")
        assert store.read_manifest() is None
        assert run(store, OURS, 20) == manifest

    def test_intact_files_have_their_recorded_size(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        assert store.intact_files(manifest) == {"samples.npy"}
        store.write_bytes("samples.npy", b"another run's")
        assert store.intact_files(manifest) == set()

    def test_reading_a_shard_checks_it_against_its_record(self, store: Store) -> None:
        record = run(store, OURS, 20).shards[0]
        changed = an_identity(seed=2)
        store.backend.remove([FIRST_FILE])
        with pytest.raises(StorageFailed, match="is missing"):
            store.read_shard(record)
        write_shards(store, OURS, [FIRST])
        store.backend.remove([FIRST_FILE])
        store.write_shard(FIRST, samples_of(FIRST, changed), OURS.fingerprint)
        with pytest.raises(StorageFailed, match=f"{FIRST_FILE} is damaged"):
            store.read_shard(record)

    def test_samples_npy_equals_the_file_of_numpy(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        expected = io.BytesIO()
        np.save(expected, expected_samples(manifest))
        data = store.backend.read("samples.npy", 2**20)
        assert data == expected.getvalue()
        record = manifest.files["samples.npy"]
        assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())

    @pytest.mark.parametrize("rows", [19, 21])
    def test_samples_npy_needs_the_right_number_of_rows(self, store: Store, rows: int) -> None:
        manifest = run(store, OURS, 20)
        previous = store.backend.read("samples.npy", 2**20)
        shape = (rows, *manifest.shape)
        with pytest.raises(ValueError, match="rows"):
            store.write_npy("samples.npy", shape, map(store.read_shard, manifest.shards))
        with pytest.raises(ValueError, match="rows"):
            store.write_npy("new.npy", shape, map(store.read_shard, manifest.shards))
        assert store.backend.read("samples.npy", 2**20) == previous
        assert store.backend.read("new.npy", 2**20) is None

    def test_an_alias_keeps_its_content(self, store: Store) -> None:
        store.write_bytes("grid.png", b"one")
        store.link_or_copy("grid.png", "ray_samples_20261123-1200_grid.png")
        store.link_or_copy("grid.png", "ray_samples_20261123-1200_grid.png")
        store.write_bytes("grid.png", b"two")
        assert all_files(store) == {"grid.png", "ray_samples_20261123-1200_grid.png"}
        assert store.backend.read("ray_samples_20261123-1200_grid.png", 2**20) == b"one"

    def test_listings_are_not_cached(self, uri: str) -> None:
        one, other = Store.open(uri), Store.open(uri)
        one.initialize(OURS, overwrite=False)
        assert one.scan(OURS).records == []
        records = write_shards(other, OURS, list(shards_of(20, 8)))
        assert one.scan(OURS).records == records

    def test_a_store_pickles_to_its_location(self, store: Store) -> None:
        store.initialize(OURS, overwrite=False)
        pickled = pickle.dumps(store)
        assert len(pickled) < 500
        assert pickle.loads(pickled) == store  # noqa: S301 - our own bytes
        assert pickle.loads(pickled).read_identity() == OURS  # noqa: S301

    def test_one_of_many_reserves_a_name(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda index: store.backend.reserve("lease/one", b"%d" % index), range(8)))
        assert won.count(True) == 1
        assert store.backend.read("lease/one", 9) == b"%d" % won.index(True)

    def test_one_driver_holds_the_store(self, store: Store) -> None:
        first = take(store.backend)
        with pytest.raises(OutputInUse, match="far-away, since"):
            take(store.backend, clock=FakeClock(on_sleep=first.verify))
        first.release()
        take(store.backend).release()
        assert store.backend.sizes("lease") == {}

    def test_a_dead_driver_is_superseded(self, store: Store) -> None:
        dead, clock = take(store.backend), FakeClock()
        lease = take(store.backend, clock=clock)
        assert clock.slept >= DEAD_AFTER_SECONDS
        with pytest.raises(Superseded):
            dead.verify()
        dead.release()
        lease.verify()
        lease.release()
        assert store.backend.sizes("lease") == {}

    def test_a_higher_attempt_supersedes_a_lower(self, store: Store) -> None:
        first = take(store.backend, a_driver(Attempt("a-uid", 1)))
        second = take(store.backend, a_driver(Attempt("a-uid", 2)))
        with pytest.raises(Superseded, match="attempt 2"):
            first.verify()
        second.verify()

    def test_a_manifest_needs_all_shards(self, store: Store) -> None:
        records = list(run(store, OURS, 20).shards)
        with pytest.raises(ValueError, match="20 samples"):
            Manifest.of(OURS, 20, records[:-1], {})
