"""A store written by the last release with identities of version 1 is complete, and is grown under its fingerprint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import Checkpoint, fetch, load
from ddpm_inference.job import Hardware, Identity, Job, ModelRequest, resolve_sampler, shards_of
from ddpm_inference.plan import require_same_job, resolve_identity, unknown_fields_note
from ddpm_inference.store import Store
from tests.support.storing import run

FIXTURE = Path(__file__).parents[3] / "fixtures" / "store_version_1"
MODEL = ModelRequest(uri="builtin://mnist")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "out"))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load(fetch(MODEL.uri), MODEL)


def resolved(place: Path, checkpoint: Checkpoint, **resources: object) -> Identity:
    """Returns the identity of the command that wrote the store, given again with this release."""
    job = Job.model_validate(
        {
            "model": MODEL,
            "seed": 3,
            "sampler": {"name": "ddim", "steps": 2},
            "output": {"uri": str(place)},
            "resources": resources,
        }
    )
    stored = Store.open(str(place)).read_identity()
    assert stored is not None
    assert resolve_sampler(job.sampler, checkpoint.trained) == stored.sampler
    here = Hardware(cpu_vendor="some", aten="AVX2", onednn="AVX2")
    return resolve_identity(job, checkpoint, stored, device="cpu", torch=stored.torch, hardware=here)


@pytest.mark.parametrize("cpus", [1, 4])
def test_the_same_command_continues_it(place: Path, checkpoint: Checkpoint, cpus: int) -> None:
    stored = Store.open(str(place)).read_identity()
    assert stored is not None
    identity = resolved(place, checkpoint, num_cpus_per_task=cpus)
    assert identity == stored
    require_same_job(identity, stored, str(place))
    note = unknown_fields_note(stored)
    assert note is not None
    assert "version 1" in note
    assert "threads and hardware" in note


def test_it_is_complete(place: Path, checkpoint: Checkpoint) -> None:
    manifest = Store.open(str(place)).complete_manifest(resolved(place, checkpoint), 2)
    assert manifest is not None
    assert Store.open(str(place)).intact_files(manifest) == {"samples.npy"}


def test_it_is_finished_after_an_interruption(place: Path, checkpoint: Checkpoint) -> None:
    before = (place / "manifest.json").read_bytes()
    (place / "manifest.json").unlink()
    (place / "samples.npy").unlink()
    run(Store.open(str(place)), resolved(place, checkpoint), 2)
    assert (place / "manifest.json").read_bytes() == before


def test_it_grows_under_its_own_fingerprint(place: Path, checkpoint: Checkpoint) -> None:
    job_json, shard = (place / "job.json").read_bytes(), next((place / "shards").iterdir())
    first = shard.read_bytes()
    identity = resolved(place, checkpoint)
    manifest = run(Store.open(str(place)), identity, 5)
    assert manifest.n_samples == 5
    assert manifest.identity.version == 1
    assert [record.shard for record in manifest.shards] == list(shards_of(5, 2))
    assert (place / "job.json").read_bytes() == job_json
    assert shard.read_bytes() == first
