"""`kubectl ddpm verify`: the program that hashes in the pod, and how its report is read."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

import ddpm_operator.client
from ddpm_operator.client import DamagedFile, Unreachable, Verified
from ddpm_operator.client.verify import verified_from

SHARD = "shards/000000000-000000031.npz"
PROGRAM = files(ddpm_operator.client).joinpath("verifier_program.py").read_text()


def record(data: bytes) -> dict[str, object]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A complete output of one shard and samples.npy, of 3 MB each."""
    shard, npy = b"shard" * 600_000, b"npy" * 1_000_000
    (tmp_path / "shards").mkdir()
    (tmp_path / SHARD).write_bytes(shard)
    (tmp_path / "samples.npy").write_bytes(npy)
    manifest = {
        "version": 1,
        "n_samples": 32,
        "shards": [{"first": 0, "last": 31, **record(shard)}],
        "files": {"samples.npy": record(npy)},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def verified(out: Path, sha256: str, progress: list[tuple[int, int]] | None = None) -> Verified:
    """Runs the program as the pod does, and reads its report."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(out), sha256], capture_output=True, check=True)
    on_progress = (lambda *_: None) if progress is None else lambda done, total: progress.append((done, total))
    return verified_from([ended.stdout], sha256, on_progress)


def manifest_sha256(out: Path) -> str:
    return hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_damage_in_the_output_is_reported(out: Path) -> None:
    sha256, progress = manifest_sha256(out), list[tuple[int, int]]()
    assert verified(out, sha256, progress) == Verified(sha256, 32, 2, ())
    assert progress[-1] == (6_000_000, 6_000_000)

    damages: dict[str, Callable[[Path], object]] = {
        "has another sha256 than in the manifest": flip,
        "has 10 bytes, not the 3000000 of the manifest": lambda path: path.write_bytes(bytes(10)),
        "is larger than the 3000000 bytes of the manifest": lambda path: path.write_bytes(bytes(3_000_001)),
        "is missing": Path.unlink,
    }
    for problem, damage in damages.items():
        for name in (SHARD, "samples.npy"):
            intact = (out / name).read_bytes()
            damage(out / name)
            assert verified(out, sha256).damaged == (DamagedFile(name, problem),)
            (out / name).write_bytes(intact)


@pytest.mark.slow
def test_another_manifest_is_not_followed(out: Path) -> None:
    sha256 = manifest_sha256(out)
    (out / "manifest.json").write_text(json.dumps({"shards": [], "files": {"../../etc/passwd": record(b"")}}))
    damaged = (DamagedFile("manifest.json", "has another sha256 than in the status"),)
    assert verified(out, sha256) == Verified(sha256, None, 0, damaged)
    (out / "manifest.json").unlink()
    assert verified(out, sha256).damaged == (DamagedFile("manifest.json", "is missing"),)


def test_the_report_may_come_in_chunks_of_any_size() -> None:
    report = b'{"done": 5, "total": 9}\n{"file": "grid.png", "problem": "is missing"}\n{"samples": 7, "files": 3}\n'
    for size in (1, 7, 1000):
        chunks = [report[start : start + size] for start in range(0, len(report), size)]
        result, progress = read(chunks)
        assert result == Verified("0" * 64, 7, 3, (DamagedFile("grid.png", "is missing"),))
        assert progress == [(5, 9)]


def read(chunks: list[bytes]) -> tuple[Verified, list[tuple[int, int]]]:
    """Returns the result of a report, and the progress that it told."""
    progress = list[tuple[int, int]]()
    return verified_from(chunks, "0" * 64, lambda done, total: progress.append((done, total))), progress


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b'{"done": 5, "total": 9}\n',
        b'{"samples": 7, "files": 3}',
        b"hello\n",
        b'{"file": "../x", "problem": "is missing"}\n{"samples": 7, "files": 3}\n',
        b'{"file": "x", "problem": "\\u001b[31m"}\n{"samples": 7, "files": 3}\n',
        b"[" * 5000,
        b'{"file": "x", "problem": "is missing"}\n' * 10_001,
    ],
)
def test_an_unusable_report_is_an_error(report: bytes) -> None:
    with pytest.raises(Unreachable, match="did not report"):
        verified_from([report], "0" * 64, lambda done, total: None)
