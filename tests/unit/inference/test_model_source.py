"""The commit and files of a model in job.json: recorded, not part of the fingerprint, and never mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_inference.checkpoint import load_from
from ddpm_inference.errors import OutputConflict
from ddpm_inference.job import Identity, Job, ModelRequest, ModelSource, OutputRequest
from ddpm_inference.plan import pinned_revision, require_same_job, resolve_identity
from tests.support.pipelines import nested, write

URI = "hf://org/net"


def drawn(folder: Path, seed: int, commit: str, stored: Identity | None = None, uri: str = URI) -> Identity:
    checkpoint = load_from(ModelRequest(uri=str(write(folder / commit, nested(seed)))))
    assert checkpoint.source is not None
    source = ModelSource(uri=uri, revision=commit, files=checkpoint.source.files)
    object.__setattr__(checkpoint, "source", source)
    return resolve_identity(job(uri), checkpoint, stored, device="cpu", torch="2")


def job(uri: str = URI) -> Job:
    return Job(model=ModelRequest(uri=uri), output=OutputRequest(uri="out"))


def test_a_resume_of_the_same_uri_uses_the_stored_commit(tmp_path: Path) -> None:
    stored = Identity.parse(drawn(tmp_path, 0, "a" * 40).model_dump_json(), "job.json")
    assert stored.source is not None
    assert [file.name for file in stored.source.files] == sorted(nested())
    assert pinned_revision(job(), stored) == "a" * 40
    assert pinned_revision(job(f"{URI}@v2"), stored) is None
    assert pinned_revision(job(), None) is None


def test_another_commit_with_other_files_is_refused_and_names_the_stored_one(tmp_path: Path) -> None:
    stored = drawn(tmp_path, 0, "a" * 40)
    other = drawn(tmp_path, 1, "b" * 40, stored, f"{URI}@v2")
    with pytest.raises(OutputConflict) as error:
        require_same_job(other, stored, "out")
    assert f"source.revision: {'b' * 40}, there {'a' * 40}" in error.value.message
    assert f"@{'a' * 40}" in error.value.hint


def test_equal_files_are_the_same_job_wherever_they_lie(tmp_path: Path) -> None:
    stored = drawn(tmp_path, 0, "a" * 40)
    other = drawn(tmp_path, 0, "b" * 40, stored)
    require_same_job(other, stored, "out")
    assert other.source == stored.source
    bare = stored.model_copy(update={"source": None})
    assert bare.fingerprint == stored.fingerprint
    assert "source" not in bare.model_dump()
