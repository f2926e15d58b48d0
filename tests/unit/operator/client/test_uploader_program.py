"""What the uploader pod runs: a file appears whole, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from ddpm_operator.client import uploader_program

DATA = bytes(range(256)) * 10_000
SHA256 = hashlib.sha256(DATA).hexdigest()


def receive(path: Path, data: bytes, sha256: str = SHA256) -> subprocess.CompletedProcess[bytes]:
    text = Path(uploader_program.__file__).read_text()
    command = ["python3", "-c", text, str(path), str(len(DATA)), sha256]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def test_it_says_how_much_has_come_and_needs_no_end_of_its_input(tmp_path: Path) -> None:
    ended = receive(tmp_path / "model.pt", DATA + b"more")
    assert (ended.returncode, ended.stdout.split()) == (0, [b"0", b"1048576", b"2097152", b"2560000"])
    assert (tmp_path / "model.pt").read_bytes() == DATA


def test_what_is_there_already_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(DATA)
    ended = receive(tmp_path / "model.pt", b"")
    assert (ended.returncode, ended.stdout) == (0, b"2560000\n")


@pytest.mark.parametrize(
    ("data", "says"),
    [(DATA[:1_500_000], "only 1500000 bytes of 2560000 came"), (DATA[::-1], "what came is another file")],
)
def test_what_is_cut_short_or_changed_leaves_nothing(data: bytes, says: str, tmp_path: Path) -> None:
    ended = receive(tmp_path / "model.pt", data)
    assert ended.returncode == 1
    assert ended.stderr.decode() == f"{says}{': it was changed meanwhile' if 'another' in says else ''}\n"
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ended = receive(tmp_path / "no" / "model.pt", DATA)
    assert (ended.returncode, ended.stderr.decode()) == (1, f"{tmp_path}/no/model.pt: No such file or directory\n")
