"""Checkpoint URIs: paths, file:// and builtin://. The tests of S3 and https have servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.checkpoint import source as source_module
from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected
from ddpm_inference.job import ModelRequest


def test_paths_and_file_uris_name_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my model.pt"
    path.write_bytes(b"weights")
    monkeypatch.chdir(tmp_path)
    for uri in (
        str(path),
        "my model.pt",
        f"file://{path}",
        path.as_uri(),
        path.as_uri().replace("//", "//localhost"),
    ):
        assert fetch(uri) == b"weights"


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt").write_bytes(b"weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch("~/net.pt") == b"weights"


def test_the_builtin_checkpoint_has_complete_metadata() -> None:
    checkpoint = load(fetch("builtin://mnist"), ModelRequest(uri="builtin://mnist"))
    assert checkpoint.spec.image_shape == (1, 28, 28)
    assert checkpoint.trained is not None
    assert checkpoint.notes == ()


def test_a_wheel_uses_the_checkpoint_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, beside = tmp_path / "package", tmp_path / "checkout"
    monkeypatch.setattr(source_module, "BUILTIN_FOLDERS", (inside, beside))
    for folder in (beside, inside):
        folder.mkdir()
        (folder / "mnist.safetensors").write_bytes(folder.name.encode())
        assert fetch("builtin://mnist") == folder.name.encode()


@pytest.mark.parametrize("name", ["faces", "", "../models/mnist", "mnist.safetensors", "/etc/passwd"])
def test_an_unknown_builtin_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match="is not shipped") as error:
        fetch(f"builtin://{name}")
    assert error.value.hint == "available: mnist"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://169.254.169.254/latest", "http:// is not known"),
        ("gs://bucket/model.pt", "gs:// is not supported yet"),
        ("ftp://example.org/model.pt", "ftp:// is not known"),
        ("simplecache::s3://bucket/key", "simplecache::s3:// is not known"),
    ],
)
def test_an_unknown_scheme_lists_the_known_ones(uri: str, message: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        fetch(uri)
    assert message in error.value.message
    assert error.value.hint == "use a path, file://, builtin://, s3://, https:// or hf://"


@pytest.mark.parametrize(
    ("uri", "message"),
    [("file://elsewhere/model.pt", "names another machine, elsewhere"), ("model\0.pt", "contains a null character")],
)
def test_a_malformed_uri_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        fetch(uri)


def test_an_unreadable_file_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="nothing is not there"):
        fetch(str(tmp_path / "nothing"))
    with pytest.raises(ModelNotFound, match="cannot be read: Not a directory"):
        fetch(str(tmp_path / "file" / "model.pt"))
    with pytest.raises(ModelNotFound, match="cannot be read: File name too long"):
        fetch("x" * 300)


def test_folders_and_devices_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelRejected, match="is a folder, not a file"):
        fetch(str(tmp_path))
    with pytest.raises(ModelRejected, match="pipe is a device, not a file"):
        fetch(str(tmp_path / "pipe"))
    with pytest.raises(ModelRejected, match="is a device, not a file"):
        fetch("/dev/zero")


def test_a_file_above_the_limit_is_rejected_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.pt"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelRejected, match="has 1,099,511,627,776 bytes; a checkpoint may have 4,294,967,296"):
        fetch(str(huge))
