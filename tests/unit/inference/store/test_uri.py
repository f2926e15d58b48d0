"""From the URI a user gives to the place it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.store import Store


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("/data/out", "/data/out"),
        ("/data/out/", "/data/out"),
        ("/data/50% off#1", "/data/50% off#1"),
        ("file:///data/out", "/data/out"),
        ("file://localhost/data/out", "/data/out"),
        ("file:///data/50%25%20off#1", "/data/50% off#1"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_a_uri_names_a_place(uri: str, place: str) -> None:
    assert Store.open(uri).uri == place


def test_a_relative_path_is_taken_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("./out")
    monkeypatch.chdir("/")
    assert store.uri == str(tmp_path / "out")


@pytest.mark.parametrize("uri", ["", "gs://bucket/x", "https://host/x", "file://host/x", "s3://", "s3:///x", "S3://b"])
def test_any_other_uri_is_refused_with_those_that_are_known(uri: str) -> None:
    with pytest.raises(InvalidSpec, match=f"'{uri}'") as refusal:
        Store.open(uri)
    assert all(known in refusal.value.hint for known in ("path", "file:///", "s3://bucket/prefix"))


def test_workers_reach_a_bucket_themselves() -> None:
    assert Store.open("s3://bucket/x").reached_by_workers
    assert not Store.open("/data").reached_by_workers
