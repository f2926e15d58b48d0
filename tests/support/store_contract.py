"""What every place for results must do. Each tier holds its own kind of place to it, by a fixture `uri`."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ddpm_inference.errors import OutputConflict, StorageFailed
from ddpm_inference.image_grid import thumbnail
from ddpm_inference.job import Shard, shards_of
from ddpm_inference.progress_server.thumbnail import MOST_BYTES, Thumbnail
from ddpm_inference.store import Manifest, Store, select
from tests.support.storing import an_identity, expected_samples, run, samples_of, stored_samples, write_shards

OURS = an_identity(seed=0)
OTHERS = an_identity(seed=1)
FIRST = Shard(first=0, last=7)
Harm = Callable[[bytes], bytes]
FIRST_FILE = "shards/000000000-000000007.npz"


def all_files(store: Store) -> set[str]:
    return {*store.place.sizes(""), *(f"shards/{name}" for name in store.place.sizes("shards"))}


class StoreContract:
    @pytest.fixture
    def store(self, uri: str) -> Store:
        return Store.open(uri)

    def test_a_place_where_nothing_is_holds_nothing(self, store: Store) -> None:
        assert store.read_identity() is None
        assert store.read_manifest() is None
        assert store.finished(OURS, 1) is None
        assert store.scan(OURS) == ([], [])

    def test_a_run_leaves_the_documented_files_and_nothing_else(self, store: Store) -> None:
        run(store, OURS, 20)
        shards = {f"shards/{shard.name}" for shard in shards_of(20, 8)}
        assert all_files(store) == {"job.json", "manifest.json", "samples.npy", *shards}

    def test_the_manifest_accounts_for_every_sample_and_byte(self, store: Store) -> None:
        run(store, OURS, 20)
        manifest = store.read_manifest()
        assert manifest is not None
        assert (manifest.n_samples, manifest.shape, manifest.fingerprint) == (20, (1, 4, 4), OURS.fingerprint)
        for record in manifest.shards:
            data = store.place.read(f"shards/{record.name}", 2**20)
            assert data is not None
            assert (len(data), hashlib.sha256(data).hexdigest()) == (record.bytes, record.sha256)
        np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))

    def test_the_sha256_of_the_manifest_is_that_of_its_bytes(self, store: Store) -> None:
        with pytest.raises(StorageFailed, match=r"manifest\.json is gone"):
            store.manifest_sha256()
        said = store.write_manifest(run(store, OURS, 20))
        data = store.place.read("manifest.json", 2**20)
        assert data is not None
        assert hashlib.sha256(data).hexdigest() == store.manifest_sha256() == said

    def test_another_thread_can_make_a_picture_of_what_is_stored(self, store: Store) -> None:
        gallery = Thumbnail()
        gallery.add(store, run(store, OURS, 20).shards)
        with ThreadPoolExecutor(1) as pool:
            png = pool.submit(gallery.png, 0.0).result()
        assert png == thumbnail(samples_of(Shard(first=0, last=19), OURS), MOST_BYTES)

    def test_equal_jobs_leave_equal_bytes_whatever_the_order_of_their_shards(self, uri: str) -> None:
        one, other = Store.open(f"{uri}/one"), Store.open(f"{uri}/other")
        run(one, OURS, 20)
        other.claim(OURS, overwrite=False)
        write_shards(other, OURS, list(shards_of(20, 8))[::-1])
        run(other, OURS, 20)
        for name in all_files(one):
            assert one.place.read(name, 2**20) == other.place.read(name, 2**20)

    def test_the_job_that_lives_here_may_come_again(self, store: Store) -> None:
        store.claim(OURS, overwrite=False)
        store.claim(OURS, overwrite=False)
        assert store.read_identity() == OURS

    def test_another_job_is_refused_with_the_difference_and_the_ways_out(self, store: Store) -> None:
        run(store, OURS, 20)
        before = {name: store.place.read(name, 2**20) for name in all_files(store)}
        with pytest.raises(OutputConflict, match="seed: 1, there 0") as refusal:
            store.claim(OTHERS, overwrite=False)
        assert store.uri in refusal.value.message
        assert all(way in refusal.value.hint for way in ("same flags", "another output place", "--overwrite"))
        assert {name: store.place.read(name, 2**20) for name in all_files(store)} == before

    def test_a_job_json_that_cannot_be_read_is_refused(self, store: Store) -> None:
        store.place.write("job.json", b'{"version": 99}')
        with pytest.raises(OutputConflict, match=r"job\.json is not valid: .*version"):
            store.claim(OURS, overwrite=False)

    def test_overwrite_removes_a_former_run_and_nothing_else(self, store: Store) -> None:
        run(store, OTHERS, 20)
        store.write_bytes("grid.png", b"png")
        foreign = {"notes.txt", "ray_samples_20261123-1200_all.npy", "shards/mine.npz"}
        for name in foreign:
            store.place.write(name, b"keep")
        store.claim(OURS, overwrite=True)
        assert all_files(store) == {"job.json", *foreign}
        assert store.read_identity() == OURS

    def test_foreign_files_are_no_obstacle_and_stay(self, store: Store) -> None:
        store.place.write("notes.txt", b"keep")
        store.place.write("shards/mine.npz", b"keep")
        run(store, OURS, 20)
        assert store.place.read("notes.txt", 2**20) == b"keep"
        assert store.place.read("shards/mine.npz", 2**20) == b"keep"

    @pytest.mark.parametrize("name", ["samples.npy", "grid.png", "manifest.json", FIRST_FILE])
    def test_results_that_no_job_json_vouches_for_are_not_written_over(self, store: Store, name: str) -> None:
        store.place.write(name, b"whose?")
        with pytest.raises(OutputConflict, match=name):
            store.claim(OURS, overwrite=False)
        assert store.place.read(name, 2**20) == b"whose?"
        assert store.read_identity() is None

    def test_a_shard_written_again_stays_as_it_was_first(self, store: Store) -> None:
        store.claim(OURS, overwrite=False)
        first = store.write_shard(FIRST, samples_of(FIRST, OURS), OURS.fingerprint)
        elsewhere = samples_of(FIRST, OURS) + np.float32(1e-6)
        assert store.write_shard(FIRST, elsewhere, OURS.fingerprint) == first
        np.testing.assert_array_equal(store.read_shard(first), samples_of(FIRST, OURS))

    @pytest.mark.parametrize(
        "harm",
        [
            lambda data: data[:-1],
            lambda data: b"",
            lambda data: data[:500] + b"\0" * 9,
            lambda data: data + bytes(2**16),
        ],
    )
    def test_a_damaged_shard_does_not_count_and_is_replaced(self, store: Store, harm: Harm) -> None:
        store.claim(OURS, overwrite=False)
        [record] = write_shards(store, OURS, [FIRST])
        data = store.place.read(FIRST_FILE, 2**20)
        assert data is not None
        store.place.write(FIRST_FILE, harm(data))
        records, warnings = store.scan(OURS)
        assert records == []
        assert len(warnings) == 1
        assert FIRST_FILE in warnings[0]
        assert write_shards(store, OURS, [FIRST]) == [record]
        assert store.scan(OURS) == ([record], [])

    def test_no_more_of_a_file_is_read_than_shows_that_it_is_too_long(self, store: Store) -> None:
        store.place.write("long", b"a" * 5000)
        assert store.place.read("long", 5000) == b"a" * 5000
        assert store.place.read("long", 4999) == b"a" * 5000
        assert store.place.read("long", 100) == b"a" * 101
        assert list(store.place.read_each(["long", "none"], 100)) == [b"a" * 101, None]

    def test_documents_longer_than_this_program_writes_them_do_not_count(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        for name in ("manifest.json", "job.json"):
            sound = store.place.read(name, 2**20)
            assert sound is not None
            store.place.write(name, sound + b" " * (2**20 + 2**12))
        assert store.read_manifest() is None
        assert store.finished(OURS, 20) is None
        with pytest.raises(OutputConflict, match=r"job\.json is not valid: it is longer than the 1,048,576 bytes"):
            store.read_identity()
        store.place.write("job.json", OURS.model_dump_json().encode())
        assert run(store, OURS, 20) == manifest

    def test_a_manifest_of_shards_larger_than_the_jobs_can_be_is_not_believed(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        data = store.place.read(FIRST_FILE, 2**20)
        assert data is not None
        store.place.write(FIRST_FILE, data + bytes(2**16))
        first = manifest.shards[0].model_copy(update={"bytes": len(data) + 2**16})
        store.write_manifest(manifest.model_copy(update={"shards": (first, *manifest.shards[1:])}))
        assert store.finished(OURS, 20) is None
        assert run(store, OURS, 20) == manifest

    def test_a_shard_of_another_job_does_not_count_and_is_replaced(self, store: Store) -> None:
        store.claim(OTHERS, overwrite=False)
        write_shards(store, OTHERS, [FIRST])
        store.place.write("job.json", OURS.model_dump_json().encode())
        records, [warning] = store.scan(OURS)
        assert records == []
        assert "another job" in warning
        [record] = write_shards(store, OURS, [FIRST])
        np.testing.assert_array_equal(store.read_shard(record), samples_of(FIRST, OURS))

    def test_a_late_writer_of_a_former_job_cannot_spoil_a_new_one(self, store: Store) -> None:
        run(store, OTHERS, 20)
        store.claim(OURS, overwrite=True)
        manifest = run(store, OURS, 20)
        with pytest.raises(OutputConflict, match="taken by another job"):
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
    def test_samples_that_break_the_contract_are_not_stored(self, store: Store, samples: np.ndarray) -> None:
        with pytest.raises(ValueError, match="samples 0 to 7 must"):
            store.write_shard(FIRST, samples, OURS.fingerprint)
        assert all_files(store) == set()

    def test_growth_samples_only_what_is_missing(self, store: Store) -> None:
        run(store, OURS, 20)
        usable, missing = select(store.scan(OURS).records, 40, 8)
        assert [(s.first, s.last) for s in usable] == [(0, 7), (8, 15)]
        assert [(s.first, s.last) for s in missing] == [(16, 23), (24, 31), (32, 39)]

    def test_a_superseded_shard_goes_only_when_the_new_manifest_is_there(self, store: Store) -> None:
        small = run(store, OURS, 20)
        write_shards(store, OURS, [Shard(first=16, last=23)])
        assert store.finished(OURS, 20) == small
        run(store, OURS, 24)
        assert sorted(store.place.sizes("shards")) == [shard.name for shard in shards_of(24, 8)]

    def test_a_job_that_holds_more_than_asked_for_is_finished_and_stays(self, store: Store) -> None:
        large = run(store, OURS, 40)
        assert run(store, OURS, 20) == large
        assert store.read_manifest() == large

    def test_an_unfinished_larger_run_serves_a_smaller_one_and_is_kept(self, store: Store) -> None:
        store.claim(OURS, overwrite=False)
        large = write_shards(store, OURS, list(shards_of(40, 8))[:4])
        small = run(store, OURS, 20)
        np.testing.assert_array_equal(stored_samples(store, small), expected_samples(small))
        assert select(store.scan(OURS).records, 40, 8).usable == large

    @pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: b""], ids=["shortened", "removed"])
    def test_a_finished_job_with_a_missing_shard_is_not_finished(self, store: Store, harm: Harm) -> None:
        manifest = run(store, OURS, 20)
        data = store.place.read(FIRST_FILE, 2**20)
        assert data is not None
        store.place.remove([FIRST_FILE])
        if left := harm(data):
            store.place.write(FIRST_FILE, left)
        assert store.finished(OURS, 20) is None
        assert run(store, OURS, 20) == manifest
        assert store.finished(OURS, 20) == manifest

    def test_a_manifest_that_is_not_valid_counts_as_none(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        store.place.write("manifest.json", b"{")
        assert store.read_manifest() is None
        assert run(store, OURS, 20) == manifest

    def test_intact_files_are_those_there_in_their_length(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        assert store.intact_files(manifest) == {"samples.npy"}
        store.write_bytes("samples.npy", b"another run's")
        assert store.intact_files(manifest) == set()

    def test_reading_a_shard_checks_it_against_its_record(self, store: Store) -> None:
        record = run(store, OURS, 20).shards[0]
        changed = an_identity(seed=2)
        store.place.remove([FIRST_FILE])
        with pytest.raises(StorageFailed, match="is gone"):
            store.read_shard(record)
        write_shards(store, OURS, [FIRST])
        store.place.remove([FIRST_FILE])
        store.write_shard(FIRST, samples_of(FIRST, changed), OURS.fingerprint)
        with pytest.raises(StorageFailed, match=f"{FIRST_FILE} is damaged"):
            store.read_shard(record)

    def test_samples_npy_is_what_numpy_would_have_saved(self, store: Store) -> None:
        manifest = run(store, OURS, 20)
        expected = io.BytesIO()
        np.save(expected, expected_samples(manifest))
        data = store.place.read("samples.npy", 2**20)
        assert data == expected.getvalue()
        record = manifest.files["samples.npy"]
        assert (record.bytes, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())

    @pytest.mark.parametrize("rows", [19, 21])
    def test_samples_npy_with_the_wrong_number_of_rows_does_not_appear(self, store: Store, rows: int) -> None:
        manifest = run(store, OURS, 20)
        former = store.place.read("samples.npy", 2**20)
        shape = (rows, *manifest.shape)
        with pytest.raises(ValueError, match="rows"):
            store.write_npy("samples.npy", shape, map(store.read_shard, manifest.shards))
        with pytest.raises(ValueError, match="rows"):
            store.write_npy("new.npy", shape, map(store.read_shard, manifest.shards))
        assert store.place.read("samples.npy", 2**20) == former
        assert store.place.read("new.npy", 2**20) is None

    def test_an_alias_keeps_its_content_when_the_file_is_written_anew(self, store: Store) -> None:
        store.write_bytes("grid.png", b"one")
        store.link_or_copy("grid.png", "ray_samples_20261123-1200_grid.png")
        store.link_or_copy("grid.png", "ray_samples_20261123-1200_grid.png")
        store.write_bytes("grid.png", b"two")
        assert all_files(store) == {"grid.png", "ray_samples_20261123-1200_grid.png"}
        assert store.place.read("ray_samples_20261123-1200_grid.png", 2**20) == b"one"

    def test_a_listing_is_always_fresh(self, uri: str) -> None:
        one, other = Store.open(uri), Store.open(uri)
        one.claim(OURS, overwrite=False)
        assert one.scan(OURS).records == []
        records = write_shards(other, OURS, list(shards_of(20, 8)))
        assert one.scan(OURS).records == records

    def test_a_store_travels_as_its_place_alone(self, store: Store) -> None:
        store.claim(OURS, overwrite=False)
        parcel = pickle.dumps(store)
        assert len(parcel) < 500
        assert pickle.loads(parcel) == store  # noqa: S301 - our own bytes
        assert pickle.loads(parcel).read_identity() == OURS  # noqa: S301

    def test_a_manifest_for_other_shards_than_are_asked_for_cannot_be_made(self, store: Store) -> None:
        records = list(run(store, OURS, 20).shards)
        with pytest.raises(ValueError, match="20 samples"):
            Manifest.of(OURS, 20, records[:-1], {})
