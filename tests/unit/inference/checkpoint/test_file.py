"""Checkpoint file_contents: atomic saves, conversion, and file_contents that are not checkpoints."""

from __future__ import annotations

import hashlib
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm_inference.checkpoint import Checkpoint, convert, load, save, torch_reader
from ddpm_inference.checkpoint import formats
from ddpm_inference.checkpoint.safetensors_file import Metadata, Weights, encode
from ddpm_inference.errors import InvalidSpec, ModelNotFound, ModelRejected, StorageFailed
from ddpm_inference.job import ModelRequest, ModelSpec, TrainedSchedule
from ddpm_inference.models import build


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Limits the file_contents of this process to `limit` bytes: a write fails half way, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def file_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["Unet", "SimpleUnet"])
def test_a_saved_network_is_loaded_unchanged(name: str, tmp_path: Path, trained: TrainedSchedule) -> None:
    spec = ModelSpec.model_validate(
        {"name": name, "downs": (4, 6), "time_emb_dim": 2, "img_size": 8, "time_embedding": "step"}
    )
    network = build(spec).eval()
    save(tmp_path / "model.safetensors", network.state_dict(), spec, trained, {"recipe": "none"})
    checkpoint = load(tmp_path / "model.safetensors", ModelRequest(uri="x"))
    again = build(checkpoint.spec).eval()
    again.load_state_dict(checkpoint.state_dict())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 900])
    torch.testing.assert_close(again(x, t), network(x, t), rtol=0, atol=0)
    assert checkpoint.trained == trained
    assert list(file_contents(tmp_path)) == ["model.safetensors"]


def test_half_precision_weights_are_saved_as_float32(tmp_path: Path, spec: ModelSpec) -> None:
    network = build(spec).bfloat16()
    save(tmp_path / "model.safetensors", network.state_dict(), spec, None)
    checkpoint = load(tmp_path / "model.safetensors", ModelRequest(uri="x"))
    for key, value in network.float().state_dict().items():
        np.testing.assert_array_equal(checkpoint.weights[key], value.numpy(), strict=True)


def test_invalid_weights_are_not_saved(tmp_path: Path, spec: ModelSpec) -> None:
    state = build(spec).state_dict()
    with pytest.raises(ModelRejected, match="not a Unet with downs 4 8"):
        save(tmp_path / "a", state, spec.model_copy(update={"downs": (4, 8)}), None)
    state["out_conv.bias"][0] = torch.nan
    with pytest.raises(ModelRejected, match="NaN"):
        save(tmp_path / "a", state, spec, None)
    assert file_contents(tmp_path) == {}


def test_a_failed_save_keeps_the_old_file(tmp_path: Path, spec: ModelSpec) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"the old one")
    with (
        full_disk(10_000),
        pytest.raises(StorageFailed, match=r"model.safetensors could not be written: File too large"),
    ):
        save(path, build(spec).state_dict(), spec, None)
    assert file_contents(tmp_path) == {"model.safetensors": b"the old one"}


def test_saving_to_a_missing_folder_fails(tmp_path: Path, spec: ModelSpec) -> None:
    with pytest.raises(StorageFailed, match="could not be written: No such file or directory"):
        save(tmp_path / "no" / "model.safetensors", build(spec).state_dict(), spec, None)


@pytest.fixture
def bare(tmp_path: Path, weights: Weights) -> Path:
    """A safetensors checkpoint without metadata."""
    path = tmp_path / "in.safetensors"
    path.write_bytes(encode(weights, None))
    return path


def test_conversion_records_requested_and_assumed_values(bare: Path, tmp_path: Path, trained: TrainedSchedule) -> None:
    request = ModelRequest(uri="x", img_size=8)
    written = convert(bare, tmp_path / "out.safetensors", request, trained)
    assert any("time embedding: row" in note for note in written.notes)
    again = load(tmp_path / "out.safetensors", ModelRequest(uri="x", sha256=written.sha256))
    assert again.notes == ()
    assert (again.spec, again.trained) == (written.spec, trained)
    assert again.spec.time_embedding == "row"
    for key, value in load(bare, request).weights.items():
        np.testing.assert_array_equal(again.weights[key], value, strict=True)


def test_a_pt_file_is_converted(
    tmp_path: Path, weights: Weights, as_pt: Callable[[object], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the subprocess, which imports torch once more; test_torch_files.py covers it.
    monkeypatch.setattr(formats, "to_safetensors", torch_reader.read)
    (tmp_path / "in.pt").write_bytes(as_pt(weights))
    written = convert(tmp_path / "in.pt", tmp_path / "out.safetensors", ModelRequest(uri="x", img_size=8))
    data = (tmp_path / "out.safetensors").read_bytes()
    assert data == encode(weights, Metadata(model=written.spec))
    assert written.sha256 == hashlib.sha256(data).hexdigest()


def test_a_rejected_checkpoint_is_not_converted(bare: Path, tmp_path: Path) -> None:
    before = file_contents(tmp_path)
    for request, refusal in (
        (ModelRequest(uri="x", downs=(8, 16)), InvalidSpec),
        (ModelRequest(uri="x", sha256="0" * 64), ModelRejected),
    ):
        with pytest.raises(refusal):
            convert(bare, tmp_path / "out.safetensors", request)
    assert file_contents(tmp_path) == before


def test_an_existing_target_needs_overwrite(bare: Path, tmp_path: Path) -> None:
    target, request = tmp_path / "out.safetensors", ModelRequest(uri="x", img_size=8)
    target.write_bytes(b"existing file")
    with pytest.raises(InvalidSpec, match="already exists"):
        convert(bare, target, request)
    assert target.read_bytes() == b"existing file"
    written = convert(bare, target, request, overwrite=True)
    assert load(target, ModelRequest(uri="x")).sha256 == written.sha256


def test_a_contradicting_schedule_is_refused(
    file: bytes, tmp_path: Path, trained: TrainedSchedule, request_: ModelRequest
) -> None:
    (tmp_path / "in").write_bytes(file)
    other = TrainedSchedule(name="linear", timesteps=1000)
    with pytest.raises(InvalidSpec, match="trained with the schedule sigmoid of 500 timesteps, not linear of 1000"):
        convert(tmp_path / "in", tmp_path / "out", request_, other)
    assert convert(tmp_path / "in", tmp_path / "out", request_).trained == trained


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"just some notes\n", "neither a safetensors file nor a .pt file"),
        (b"\xff" * 100, "neither a safetensors file nor a .pt file"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML or XML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 852820\n", "a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 40, "an HDF5 file"),
        (b"PK\x03\x04" + b"\0" * 100, "truncated or damaged"),
    ],
)
def test_a_foreign_file_is_rejected_by_its_format(data: bytes, message: str, request_: ModelRequest) -> None:
    with pytest.raises(ModelRejected) as error:
        load(data, request_)
    assert error.value.message.startswith("some/model: it is ")
    assert message in error.value.message


def test_a_missing_file_is_not_found(tmp_path: Path, request_: ModelRequest) -> None:
    with pytest.raises(ModelNotFound, match=r"none.pt is not there"):
        load(tmp_path / "none.pt", request_)


def test_a_checkpoint_can_be_pickled(file: bytes, request_: ModelRequest) -> None:
    import pickle

    checkpoint = load(file, request_)
    again: Checkpoint = pickle.loads(pickle.dumps(checkpoint))  # noqa: S301 - of this test's own making
    assert (again.spec, again.trained, again.sha256) == (checkpoint.spec, checkpoint.trained, checkpoint.sha256)
    np.testing.assert_array_equal(again.weights["out_conv.weight"], checkpoint.weights["out_conv.weight"])
