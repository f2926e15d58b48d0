"""Where checkpoints may lie: paths, file://, builtin://. S3 and https have tests with servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import fetch, load, location
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


def test_the_shipped_checkpoint_is_found_by_name_and_says_all_of_itself() -> None:
    checkpoint = load(fetch("builtin://mnist"), ModelRequest(uri="builtin://mnist"))
    assert checkpoint.spec.image_shape == (1, 28, 28)
    assert checkpoint.trained is not None
    assert checkpoint.notes == ()


def test_in_a_wheel_the_shipped_checkpoint_is_the_one_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, beside = tmp_path / "package", tmp_path / "checkout"
    monkeypatch.setattr(location, "BUILTIN_FOLDERS", (inside, beside))
    for folder in (beside, inside):
        folder.mkdir()
        (folder / "mnist.safetensors").write_bytes(folder.name.encode())
        assert fetch("builtin://mnist") == folder.name.encode()


@pytest.mark.parametrize("name", ["faces", "", "../models/mnist", "mnist.safetensors", "/etc/passwd"])
def test_other_names_are_not_shipped(name: str) -> None:
    with pytest.raises(ModelNotFound, match="is not shipped") as error:
        fetch(f"builtin://{name}")
    assert error.value.hint == "there is: mnist"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://169.254.169.254/latest", "http:// is not known"),
        ("gs://bucket/model.pt", "gs:// is not supported yet"),
        ("ftp://example.org/model.pt", "ftp:// is not known"),
        ("simplecache::s3://bucket/key", "simplecache::s3:// is not known"),
    ],
)
def test_other_schemes_are_refused_and_the_known_ones_listed(uri: str, said: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        fetch(uri)
    assert said in error.value.message
    assert error.value.hint == "use a path, file://, builtin://, s3:// or https://"


@pytest.mark.parametrize(
    ("uri", "said"),
    [("file://elsewhere/model.pt", "names another machine, elsewhere"), ("model\0.pt", "holds a null character")],
)
def test_what_is_no_place_at_all_is_refused(uri: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        fetch(uri)


def test_what_is_not_there_or_cannot_be_read_is_not_found(tmp_path: Path) -> None:
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


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    huge = tmp_path / "huge.pt"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelRejected, match="has 1,099,511,627,776 bytes; a checkpoint may have 4,294,967,296"):
        fetch(str(huge))
