"""Local checkpoints: files that the driver is certain to reject are rejected before the upload."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import torch

from ddpm_operator.client.checkpoint_file import MAX_CHECKPOINT_BYTES, ImageShape, checkpoint_file
from ddpm_operator.client.errors import RequestRejected

ROOT = Path(__file__).resolve().parents[4]
SHIPPED = ROOT / "models/mnist.safetensors"


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor_entry(end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [end // 4], "data_offsets": [0, end]}


def with_metadata(model: object) -> bytes:
    return safetensors({"__metadata__": {"ddpm_ray": json.dumps({"version": 1, "model": model})}})


def zip_of(names: list[str]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "text")
    return file.getvalue()


def test_the_shipped_checkpoint_is_accepted() -> None:
    found = checkpoint_file(SHIPPED)
    assert (found.suffix, found.bytes) == ("safetensors", SHIPPED.stat().st_size)
    assert found.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()


def test_the_image_shape_comes_from_the_metadata(tmp_path: Path) -> None:
    assert checkpoint_file(SHIPPED).images == ImageShape(img_size=28, channels=1)
    path = tmp_path / "net.safetensors"
    for data, images in (
        (with_metadata({"img_size": 256, "more": 1}), ImageShape(img_size=256)),
        (safetensors({}), ImageShape()),
    ):
        path.write_bytes(data)
        assert checkpoint_file(path).images == images


def test_the_format_is_detected_from_the_content(tmp_path: Path) -> None:
    path = tmp_path / "net.bin"
    torch.save({"a": torch.zeros(3)}, path)
    found = checkpoint_file(path)
    assert (found.suffix, found.images) == ("pt", ImageShape())


def test_code_in_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Code()))
    checkpoint_file(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x80\x04.", "is a bare pickle"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"<html><body>Not found</body></html>", "is neither a safetensors file nor a .pt file"),
        (SHIPPED.read_bytes()[:100_000], "is 100,000 bytes long, but its header says 5,218,044"),
        (SHIPPED.read_bytes() + b"x", "is 5,218,045 bytes long, but its header says 5,218,044"),
        (b"\xff" * 7 + b"\x00{", "its header claims"),
        (safetensors({"a": {"shape": [1]}}), "has a damaged safetensors header"),
        (safetensors({"a": tensor_entry(4)})[:-3] + b"}}}", "has a damaged safetensors header"),
        (
            safetensors({"__metadata__": {"ddpm_ray": "{}"}, "a": tensor_entry(4)}, b"1234"),
            "unsupported metadata: version",
        ),
        (safetensors({"__metadata__": {"ddpm_ray": '{"version": 2}'}}), "has unsupported metadata: version"),
        (with_metadata({"img_size": "28"}), "unsupported metadata: model.img_size"),
        (with_metadata({"img_size": 1025}), "unsupported metadata: model.img_size"),
        (zip_of(["net/data.pkl"])[:-9], "is a truncated or damaged .pt file"),
        (zip_of(["net/data.pkl"]).replace(b"text", b"tExt"), "does not match its checksum"),
        (zip_of(["a.txt"]), "is a zip archive, but not one from torch.save"),
    ],
)
def test_other_files_are_rejected_by_what_they_are(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    with pytest.raises(RequestRejected) as caught:
        checkpoint_file(path)
    assert caught.value.message.startswith(str(path))
    assert message in caught.value.message
    assert caught.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestRejected, match="No such file"):
        checkpoint_file(tmp_path / "mnist")
    with pytest.raises(RequestRejected, match="Is a directory"):
        checkpoint_file(tmp_path)


def test_a_file_over_the_maximum_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        file.truncate(MAX_CHECKPOINT_BYTES + 1)
    with pytest.raises(RequestRejected, match="the maximum is 4,294,967,296"):
        checkpoint_file(path)
