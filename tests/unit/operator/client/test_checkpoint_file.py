"""A checkpoint on the user's machine: what no driver would take is refused before it is sent."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from ddpm_operator.client.checkpoint_file import LARGEST, Images, checkpoint_file
from ddpm_operator.client.errors import RequestRejected

ROOT = Path(__file__).resolve().parents[4]
SHIPPED = ROOT / "models/mnist.safetensors"


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}


def with_metadata(model: object) -> bytes:
    return safetensors({"__metadata__": {"ddpm_ray": json.dumps({"version": 1, "model": model})}})


def zipped(names: list[str]) -> bytes:
    from io import BytesIO

    into = BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    return into.getvalue()


def test_the_shipped_checkpoint_is_one() -> None:
    found = checkpoint_file(SHIPPED)
    assert (found.suffix, found.bytes) == ("safetensors", SHIPPED.stat().st_size)
    assert found.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def test_what_its_metadata_says_of_images_is_kept_and_what_has_none_says_nothing(tmp_path: Path) -> None:
    assert checkpoint_file(SHIPPED).images == Images(img_size=28, channels=1)
    path = tmp_path / "net.safetensors"
    for data, images in (
        (with_metadata({"img_size": 256, "more": 1}), Images(img_size=256)),
        (safetensors({}), Images()),
    ):
        path.write_bytes(data)
        assert checkpoint_file(path).images == images


def test_what_torch_saves_is_one_whatever_it_is_called(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    torch.save({"a": torch.zeros(3)}, path)
    found = checkpoint_file(path)
    assert (found.suffix, found.images) == ("pt", Images())


def test_a_pickle_that_carries_code_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Code()))
    checkpoint_file(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\x80\x04.", "is a bare pickle"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"<html><body>Not found</body></html>", "is neither a safetensors file nor a .pt file"),
        (SHIPPED.read_bytes()[:100_000], "has 100,000 bytes, and its header says 5,218,044"),
        (SHIPPED.read_bytes() + b"x", "has 5,218,045 bytes, and its header says 5,218,044"),
        (b"\xff" * 7 + b"\x00{", "its header claims"),
        (safetensors({"a": {"shape": [1]}}), "has a damaged safetensors header"),
        (safetensors({"a": tensor(4)})[:-3] + b"}}}", "has a damaged safetensors header"),
        (safetensors({"__metadata__": {"ddpm_ray": "{}"}, "a": tensor(4)}, b"1234"), "not known: version"),
        (safetensors({"__metadata__": {"ddpm_ray": '{"version": 2}'}}), "has metadata that is not known: version"),
        (with_metadata({"img_size": "28"}), "not known: model.img_size"),
        (with_metadata({"img_size": 1025}), "not known: model.img_size"),
        (zipped(["net/data.pkl"])[:-9], "is a .pt file that is cut short or damaged"),
        (zipped(["net/data.pkl"]).replace(b"text", b"tExt"), "does not match its checksum"),
        (zipped(["a.txt"]), "is a zip archive, but none that torch.save made"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_it_is(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with pytest.raises(RequestRejected) as caught:
        checkpoint_file(path)
    assert caught.value.message.startswith(str(path))
    assert says in caught.value.message
    assert caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestRejected, match="No such file"):
        checkpoint_file(tmp_path / "mnist")
    with pytest.raises(RequestRejected, match="Is a directory"):
        checkpoint_file(tmp_path)


def test_a_file_larger_than_the_driver_takes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(RequestRejected, match="of at most 4,294,967,296"):
        checkpoint_file(path)
