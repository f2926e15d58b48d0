"""Folders that cannot be an output, which is found before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddpm_inference.errors import OutputConflict, StorageFailed
from ddpm_inference.store import Store


def test_a_folder_that_is_there_or_can_be_made_is_writable(tmp_path: Path) -> None:
    Store.open(str(tmp_path)).require_writable()
    Store.open(str(tmp_path / "a" / "b")).require_writable()
    assert not list(tmp_path.iterdir())


def test_a_bucket_is_not_asked() -> None:
    Store.open("s3://bucket/prefix").require_writable()


@pytest.mark.parametrize("below", ["", "sub/folder"])
def test_a_file_or_a_broken_link_in_the_way_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, kind in (("file", "a file"), ("link", "a link to nothing")):
        with pytest.raises(OutputConflict, match=f"{tmp_path / name} is {kind}") as refused:
            Store.open(str(tmp_path / name / below)).require_folder()
        assert refused.value.exit_code == 2


@pytest.mark.parametrize("out", ["", "new/folder", "with"])
def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """Tests may run as root, for whom every folder is writable, so `os.access` is replaced."""
    (tmp_path / "with" / "shards").mkdir(parents=True)
    forbidden = tmp_path / "with" / "shards" if out == "with" else tmp_path
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != forbidden)
    store = Store.open(str(tmp_path / out))
    store.require_folder()
    with pytest.raises(StorageFailed, match=f"may not write to {forbidden}, or its file system is read-only") as error:
        store.require_writable()
    assert error.value.exit_code == 2
