"""The program in the uploader pod: a file appears complete, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from ddpm_operator.client import uploader_program

DATA = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(DATA).hexdigest()


def receive(path: Path, data: bytes, sha256: str = SHA256, name: str = "") -> subprocess.CompletedProcess[bytes]:
    root, name = (path, name) if name else (path.parent, path.name)
    program = Path(uploader_program.__file__).read_text()
    command = ["python3", "-c", program, str(root), name, str(len(DATA)), sha256]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def test_received_bytes_are_acknowledged(tmp_path: Path) -> None:
    completed = receive(tmp_path / "model.pt", DATA + b"more")
    assert (completed.returncode, completed.stdout.split()) == (0, [b"0", b"1048576", b"2097152", b"2560000"])
    assert (tmp_path / "model.pt").read_bytes() == DATA


def test_an_existing_file_is_acknowledged_at_once(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(DATA)
    completed = receive(tmp_path / "model.pt", b"")
    assert (completed.returncode, completed.stdout) == (0, b"2560000\n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA[:1_500_000], "received only 1500000 of 2560000 bytes"),
        (DATA[::-1], "the sha256 does not match: the file changed during the upload"),
    ],
)
def test_a_truncated_or_changed_file_is_not_stored(data: bytes, message: str, tmp_path: Path) -> None:
    completed = receive(tmp_path / "model.pt", data)
    assert completed.returncode == 1
    assert completed.stderr.decode() == f"{message}\n"
    assert not list(tmp_path.iterdir())


def test_an_unwritable_path_is_named(tmp_path: Path) -> None:
    completed = receive(tmp_path / "no" / "model.pt", DATA)
    assert (completed.returncode, completed.stderr.decode()) == (
        1,
        f"{tmp_path}/no/model.pt: No such file or directory\n",
    )


def test_a_file_of_a_folder_is_stored_below_it(tmp_path: Path) -> None:
    completed = receive(tmp_path, DATA, name="pipeline/unet/model.safetensors")
    assert completed.returncode == 0
    assert (tmp_path / "pipeline/unet/model.safetensors").read_bytes() == DATA
    again = receive(tmp_path, b"", name="pipeline/unet/model.safetensors")
    assert (again.returncode, again.stdout) == (0, b"2560000\n")


@pytest.mark.parametrize("name", ["../model.pt", "a/../../model.pt", "/etc/model.pt", "a//b", "a/./b", "a/"])
def test_a_name_outside_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "claim"
    root.mkdir()
    completed = receive(root, DATA, name=name)
    assert completed.returncode == 1
    assert completed.stderr.decode() == f"{name!r} is not a path below a folder\n"
    assert [*tmp_path.rglob("*")] == [root]
