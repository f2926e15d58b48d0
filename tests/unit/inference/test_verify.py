"""``ddpm-sample verify``: the report, its exit codes, and the repairs that need no sampling."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import fetch
from ddpm_inference.cli import main
from ddpm_inference.errors import InvalidSpec
from ddpm_inference.job import Identity, ResourceRequest, resolve_sampler, shards_of
from ddpm_inference.outputs import write_outputs
from ddpm_inference.store import Manifest, Store
from ddpm_inference.verify import job_of, shipped_model, verify
from tests.support.storing import an_identity, write_shards

OURS = an_identity()
SHARD = "shards/000000008-000000015.npz"
BAD_SHA256 = "is damaged: its sha256 is not that of the manifest"


def complete(path: Path, identity: Identity = OURS, n_samples: int = 20) -> Manifest:
    """Stores a complete job with samples.npy and grid.png."""
    store = Store.open(str(path))
    store.initialize(identity, overwrite=False)
    shards = write_shards(store, identity, list(shards_of(n_samples, identity.batch_size)))
    return write_outputs(store, identity, n_samples, shards, ("npy", "png"), datetime.now(UTC)).manifest


def flip(path: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    complete(tmp_path / "out")
    return tmp_path / "out"


def test_a_whole_run_is_exit_code_0(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(out)
    assert main(["verify", str(out)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{out}: 20 samples, all 5 files have the sha256 of the manifest\n"
    assert output.err == ""
    assert contents(out) == before


@pytest.mark.parametrize("name", [SHARD, "samples.npy", "grid.png"])
def test_damage_is_exit_code_4_and_named(out: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    flip(out / name)
    before = contents(out)
    assert main(["verify", str(out)]) == 4
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"{out}/{name} {BAD_SHA256}", f"{out}: 20 samples, is not whole"]
    assert f"ddpm-sample verify {out} --repair" in output.err
    assert contents(out) == before


def test_json_lists_every_problem(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sha256 = hashlib.sha256((out / "manifest.json").read_bytes()).hexdigest()
    expected = {"event": "verified", "output": str(out), "samples": 20, "files": 5, "manifestSha256": sha256}
    assert main(["verify", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**expected, "whole": True, "problems": []}
    flip(out / SHARD)
    (out / "grid.png").unlink()
    assert main(["verify", str(out), "--json"]) == 4
    problems = [{"file": SHARD, "problem": BAD_SHA256}, {"file": "grid.png", "problem": "is missing"}]
    assert json.loads(capsys.readouterr().out) == {**expected, "whole": False, "problems": problems}


def test_a_damaged_job_json_is_reported(out: Path) -> None:
    job = out / "job.json"
    intact = job.read_text()
    job.write_text(intact.replace('"seed": 0', '"seed": 4'))
    assert verify(str(out)).lines()[0].endswith("job.json is damaged: it is not that of the manifest: seed: 4, there 0")
    job.write_text("{")
    assert "job.json is damaged" in verify(str(out)).lines()[0]
    job.unlink()
    assert verify(str(out)).lines()[0] == f"{job} is missing"


def test_an_unfinished_run_is_exit_code_4(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / "manifest.json").write_text("{")
    flip(out / SHARD)
    assert main(["verify", str(out)]) == 4
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/{SHARD} is damaged: it is not an intact shard of this job",
        f"{out}/manifest.json is missing or damaged",
        f"{out}: unfinished, 12 samples are stored",
    ]
    assert main(["verify", str(out), "--repair"]) == 2
    assert "run the command that began it again" in capsys.readouterr().err


def test_a_place_without_a_run_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (str(tmp_path), str(tmp_path / "none"), "ftp://host/x"):
        assert main(["verify", place]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--model_path", "x"], ["--workers", "0", "--repair"]])
def test_unusable_flags_are_exit_code_2(out: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *arguments, *([str(out)] if arguments else [])]) == 2
    assert "ddpm-sample verify --help lists every flag" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["samples.npy", "grid.png", "job.json"])
def test_derived_files_are_repaired_without_the_checkpoint(out: Path, name: str) -> None:
    before = contents(out)
    for damage in (flip, Path.unlink):
        damage(out / name)
        assert main(["verify", str(out), "--repair"]) == 0
        after = contents(out)
        assert {**after, "verified.json": b""} == {**before, "verified.json": b""}
        assert main(["verify", str(out)]) == 0


def test_a_damaged_shard_needs_the_checkpoint(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(out / SHARD)
    before = contents(out)
    assert main(["verify", str(out), "--repair"]) == 2
    error = capsys.readouterr().err
    assert f"needs the checkpoint with the sha256 {OURS.model_sha256}" in error
    assert "--model_path" in error
    assert main(["verify", str(out), "--repair", "--model_path", "builtin://mnist", "--ray_address", "None"]) == 2
    assert "sha256" in capsys.readouterr().err
    assert contents(out) == before


def test_a_shipped_checkpoint_is_recognized() -> None:
    sha256 = hashlib.sha256(fetch("builtin://mnist")).hexdigest()
    assert shipped_model(OURS.model_copy(update={"model_sha256": sha256})) == "builtin://mnist"
    with pytest.raises(InvalidSpec, match="needs the checkpoint"):
        shipped_model(OURS)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp"])
def test_the_job_of_a_repair_has_the_same_samples(tmp_path: Path, name: str) -> None:
    sampler = {**OURS.sampler.model_dump(), "name": name, "variance": "small" if name == "ddpm" else None}
    identity = Identity.model_validate({**OURS.model_dump(), "sampler": sampler, "seed": 7})
    manifest = complete(tmp_path, identity)
    job = job_of(manifest, str(tmp_path), "net.safetensors", ResourceRequest())
    assert resolve_sampler(job.sampler, None) == identity.sampler
    assert (job.n_samples, job.seed, job.batch_size, job.device, job.compile) == (20, 7, 8, "cpu", False)
    assert (job.model.sha256, job.model.downs) == (identity.model_sha256, identity.model.downs)
    assert (job.output.uri, job.output.formats, job.output.overwrite) == (str(tmp_path), ("npy", "png"), False)
