"""An S3 bucket as the output, on a real S3 server."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs

from ddpm_inference.errors import StorageFailed
from ddpm_inference.job import shards_of
from ddpm_inference.store import Store
from ddpm_inference.store.shard_file import Samples, encode
from tests.support.s3 import Reconnect, S3Server, StartS3, UseS3
from tests.support.store_contract import StoreContract
from tests.support.storing import an_identity, expected_samples, run, samples_of, stored_samples, write_shards

OURS = an_identity()
SHARDS = list(shards_of(20, 8))


class TestBucket(StoreContract):
    @pytest.fixture
    def uri(self, bucket: str) -> str:
        return f"s3://{bucket}/deep/out"


def test_a_bucket_without_a_prefix_works(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}")
    manifest = run(store, OURS, 20)
    np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))


def test_prefixes_that_begin_alike_do_not_mix(bucket: str) -> None:
    one, other = Store.open(f"s3://{bucket}/out"), Store.open(f"s3://{bucket}/out2")
    run(one, OURS, 20)
    assert other.scan(OURS) == ([], [])
    other.initialize(an_identity(seed=1), overwrite=True)
    assert one.complete_manifest(OURS, 20) is not None


def test_special_characters_in_a_prefix_are_literal(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/run [1] *?#%20")
    manifest = run(store, OURS, 20)
    assert store.complete_manifest(OURS, 20) == manifest
    store.initialize(OURS, overwrite=True)
    assert store.scan(OURS).records == []


def test_a_listing_of_several_pages_is_complete(bucket: str, s3_server: S3Server) -> None:
    identity = an_identity(batch_size=1, img_size=1)
    store = Store.open(f"s3://{bucket}/many")
    store.initialize(identity, overwrite=False)
    shards = list(shards_of(1100, 1))
    folder = s3_server.folder / bucket / "many" / "shards"
    folder.mkdir()
    for shard in shards:
        (folder / shard.name).write_bytes(encode(shard, samples_of(shard, identity), identity.fingerprint))
    records, warnings = store.scan(identity)
    assert warnings == []
    assert [record.shard for record in records] == shards
    store.initialize(identity, overwrite=True)
    assert store.backend.sizes("shards") == {}


def test_list_read_write_and_delete_are_enough(
    start_s3: StartS3,
    use_s3: UseS3,
    versitygw: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reconnect: Reconnect,
) -> None:
    for name in ("users", "data"):
        (tmp_path / name).mkdir()
    with start_s3(tmp_path / "data", "--iam-dir", tmp_path / "users") as server:
        use_s3(server)
        owner, s3 = server.environment, s3fs.S3FileSystem()
        admin = ["--access", owner["AWS_ACCESS_KEY_ID"], "--secret", owner["AWS_SECRET_ACCESS_KEY"]]
        user = ["--access", "sampler", "--secret", "sampler-secret", "--role", "user"]
        subprocess.run(
            [versitygw, "admin", *admin, "--endpoint-url", server.endpoint, "create-user", *user], check=True
        )
        s3.mkdir("bucket")
        rights = ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        allowed = {"Effect": "Allow", "Principal": {"AWS": ["sampler"]}, "Action": rights}
        policy = {"Statement": [allowed | {"Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"]}]}
        s3.call_s3("put_bucket_policy", Bucket="bucket", Policy=json.dumps(policy))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "sampler")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sampler-secret")
        reconnect()
        with pytest.raises(PermissionError):
            open_uploads("bucket")
        store = Store.open("s3://bucket/out")
        run(store, OURS, 20)
        manifest = run(store, OURS, 40)
        store.link_or_copy("samples.npy", "alias.npy")
        np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))
        store.initialize(an_identity(seed=1), overwrite=True)
        assert set(store.backend.sizes("")) == {"job.json", "alias.npy"}


def test_a_shard_that_cannot_be_removed_is_named(bucket: str) -> None:
    locked = f"{bucket}-locked"
    s3 = s3fs.S3FileSystem()
    s3.call_s3("create_bucket", Bucket=locked, ObjectLockEnabledForBucket=True)
    store = Store.open(f"s3://{locked}/out")
    run(store, OURS, 20)
    held = {"Bucket": locked, "Key": f"out/shards/{SHARDS[1].name}"}
    s3.call_s3("put_object_legal_hold", **held, LegalHold={"Status": "ON"})
    with pytest.raises(
        StorageFailed, match=f"out/shards/{SHARDS[1].name} could not be removed: the credentials lack permission"
    ):
        store.initialize(an_identity(seed=1), overwrite=True)
    assert store.read_identity() == OURS
    s3.call_s3("put_object_legal_hold", **held, LegalHold={"Status": "OFF"})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_in_use_works_in_another_process(bucket: str, method: str) -> None:
    store = Store.open(f"s3://{bucket}/out")
    store.initialize(OURS, overwrite=False)
    with multiprocessing.get_context(method).Pool(1) as pool:
        calls = [(shard, samples_of(shard, OURS), OURS.fingerprint) for shard in SHARDS]
        records = pool.starmap(store.write_shard, calls)
    assert store.scan(OURS).records == records


def test_the_first_of_several_writers_of_a_shard_wins(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/out")
    store.initialize(OURS, overwrite=False)
    shard = SHARDS[0]
    variants = [samples_of(shard, OURS) + np.float32(1e-6 * index) for index in range(8)]
    records = []

    def write(index: int) -> None:
        records.append(store.write_shard(shard, variants[index], OURS.fingerprint))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(records) == 8
    assert set(records) == set(store.scan(OURS).records)


def test_a_large_file_is_uploaded_in_parts(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/out")
    batches = [np.random.default_rng(index).random((64, 1, 128, 128), dtype=np.float32) for index in range(5)]
    record = store.write_npy("samples.npy", (320, 1, 128, 128), batches)
    data = store.backend.read("samples.npy", record.bytes)
    assert data is not None
    assert record.bytes == len(data) == 128 + 320 * 128 * 128 * 4
    np.testing.assert_array_equal(np.frombuffer(data, "<f4", offset=128), np.concatenate(batches).ravel())
    store.link_or_copy("samples.npy", "alias.npy")
    assert store.backend.read("alias.npy", record.bytes) == data


def open_uploads(bucket: str) -> list[str]:
    response = s3fs.S3FileSystem().call_s3("list_multipart_uploads", Bucket=bucket)
    return [upload["Key"] for upload in response.get("Uploads", ())]


def _upload_endlessly(store: Store) -> None:
    part = np.zeros((256, 1, 128, 128), np.float32)
    store.write_npy("samples.npy", (10**6, 1, 128, 128), (part for _ in range(10**6)))


def test_a_killed_upload_is_aborted_by_the_next_run(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/out")
    store.initialize(OURS, overwrite=False)
    writer = multiprocessing.get_context("fork").Process(target=_upload_endlessly, args=(store,))
    writer.start()
    deadline = time.monotonic() + 60
    while not open_uploads(bucket):
        assert time.monotonic() < deadline, "the upload does not begin"
        assert writer.is_alive()
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert set(store.backend.sizes("")) == {"job.json"}
    s3fs.S3FileSystem().call_s3("create_multipart_upload", Bucket=bucket, Key="out/samples.npy.theirs")
    run(store, OURS, 20)
    assert open_uploads(bucket) == ["out/samples.npy.theirs"]


def test_a_failed_upload_is_aborted_at_once(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}/out")

    def batches() -> Iterator[Samples]:
        yield np.zeros((256, 1, 128, 128), np.float32)
        assert open_uploads(bucket) == ["out/samples.npy"]
        raise RuntimeError("the next batch failed")

    with pytest.raises(RuntimeError, match="next batch failed"):
        store.write_npy("samples.npy", (1024, 1, 128, 128), batches())
    assert open_uploads(bucket) == []
    assert store.backend.sizes("") == {}


def test_a_server_that_dies_is_named_and_its_shards_stay(start_s3: StartS3, use_s3: UseS3, tmp_path: Path) -> None:
    with start_s3(tmp_path) as server:
        use_s3(server)
        s3fs.S3FileSystem().mkdir("bucket")
        store = Store.open("s3://bucket/out")
        store.initialize(OURS, overwrite=False)
        records = write_shards(store, OURS, SHARDS[:2])
        server.kill()
        for action in (
            lambda: write_shards(store, OURS, SHARDS[2:]),
            lambda: store.read_shard(records[0]),
            lambda: store.scan(OURS),
            lambda: store.write_npy("samples.npy", (8, 1, 4, 4), [samples_of(SHARDS[0], OURS)]),
        ):
            with pytest.raises(StorageFailed, match="the S3 server does not answer") as failure:
                action()
            assert server.endpoint in failure.value.message
            assert "AWS_ENDPOINT_URL_S3" in failure.value.hint
    with start_s3(tmp_path) as server:
        use_s3(server)
        assert store.scan(OURS) == (records, [])
        manifest = run(store, OURS, 20)
        np.testing.assert_array_equal(stored_samples(store, manifest), expected_samples(manifest))


def test_a_read_only_bucket_is_named(start_s3: StartS3, use_s3: UseS3, tmp_path: Path) -> None:
    with start_s3(tmp_path) as server:
        use_s3(server)
        s3fs.S3FileSystem().mkdir("bucket")
        store = Store.open("s3://bucket/out")
        store.initialize(OURS, overwrite=False)
        records = write_shards(store, OURS, SHARDS[:2])
    with start_s3(tmp_path, "--readonly") as server:
        use_s3(server)
        assert store.scan(OURS).records == records
        with pytest.raises(StorageFailed, match="could not be written: the credentials lack permission"):
            write_shards(store, OURS, SHARDS[2:])
        with pytest.raises(StorageFailed, match="could not be removed: the credentials lack permission"):
            store.initialize(OURS, overwrite=True)
        assert store.scan(OURS).records == records


@pytest.mark.parametrize(
    ("variables", "message", "hint"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            "the server rejected the credentials",
            "AWS_SECRET_ACCESS_KEY",
        ),
        ({"AWS_ACCESS_KEY_ID": "unknown-key"}, "No user exists", "AWS_"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no credentials", "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "missing"}, "there are no credentials", "AWS_PROFILE"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "does not answer", "AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "Invalid endpoint: nonsense", "AWS_ENDPOINT_URL"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "does not answer", "AWS_ENDPOINT_URL"),
    ],
    ids=["secret", "key", "none", "profile", "unused port", "invalid", "endpoint of S3 only"],
)
def test_an_unusable_server_is_named(
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    reconnect: Reconnect,
    tmp_path: Path,
    variables: dict[str, str],
    message: str,
    hint: str,
) -> None:
    # Credentials must not come from the machine's own files or its metadata service.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reconnect()
    with pytest.raises(StorageFailed, match=message) as failure:
        Store.open(f"s3://{bucket}/out").initialize(OURS, overwrite=False)
    assert f"s3://{bucket}/out" in failure.value.message
    assert hint in failure.value.hint


def test_a_missing_bucket_is_named(bucket: str) -> None:
    store = Store.open(f"s3://{bucket}-not/out")
    for action in (
        store.read_identity,
        lambda: store.initialize(OURS, overwrite=False),
        lambda: store.initialize(OURS, overwrite=True),
        lambda: store.scan(OURS),
        lambda: write_shards(store, OURS, SHARDS),
    ):
        with pytest.raises(StorageFailed, match="there is no such bucket") as failure:
            action()
        assert f"s3://{bucket}-not/out" in failure.value.message
        assert "create it" in failure.value.hint
