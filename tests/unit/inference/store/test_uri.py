"""Output URIs and their backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_inference.errors import InvalidSpec
from ddpm_inference.store import Store


@pytest.mark.parametrize(
    ("uri", "location"),
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
def test_a_uri_names_a_location(uri: str, location: str) -> None:
    assert Store.open(uri).uri == location


def test_a_relative_path_is_resolved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("./out")
    monkeypatch.chdir("/")
    assert store.uri == str(tmp_path / "out")


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert Store.open("~/out").uri == str(tmp_path / "home" / "out")
    assert Store.open("~").uri == str(tmp_path / "home")
    assert Store.open("./~/out").uri == str(tmp_path / "~" / "out")
    assert Store.open("~no-such-user/out").uri == str(tmp_path / "~no-such-user" / "out")


def test_a_null_character_is_rejected() -> None:
    with pytest.raises(InvalidSpec, match="null character"):
        Store.open("a\0b")


@pytest.mark.parametrize("uri", ["", "gs://bucket/x", "https://host/x", "file://host/x", "s3://", "s3:///x", "S3://b"])
def test_an_unsupported_uri_lists_the_supported_ones(uri: str) -> None:
    with pytest.raises(InvalidSpec, match=f"'{uri}'") as error:
        Store.open(uri)
    assert all(form in error.value.hint for form in ("path", "file:///", "s3://bucket/prefix"))


def test_workers_write_to_a_bucket() -> None:
    assert Store.open("s3://bucket/x").writable_by_workers
    assert not Store.open("/data").writable_by_workers
