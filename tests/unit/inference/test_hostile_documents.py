"""Corrupted Job documents, manifests and job.json files are parsed or rejected; no other exception escapes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Job, shards_of
from ddpm_inference.store import Manifest, Store
from tests.support.hostile import ANYTHING, MAX_EXAMPLES
from tests.support.storing import an_identity, run

pytestmark = pytest.mark.slow

MANY_TIMES = settings(
    max_examples=MAX_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
JOB = {
    "version": 1,
    "model": {"uri": "builtin://mnist", "downs": [8, 16]},
    "n_samples": 100,
    "sampler": {"name": "ddim", "eta": 0.5},
    "resources": {"num_cpus_per_task": 1},
    "output": {"uri": "/output", "formats": ["npy"]},
}


@st.composite
def corrupted(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """Generates a document with up to three values replaced, and some bytes changed."""
    document = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, 3))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        place[key] = draw(ANYTHING)
    data = bytearray(json.dumps(document).encode())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@MANY_TIMES
@given(corrupted(JOB))
def test_a_corrupted_job_is_parsed_or_rejected(data: bytes) -> None:
    try:
        job = Job.parse(data, "DDPM_JOB")
    except InvalidSpec as error:
        message = error.message
    else:
        message = None
        assert job.n_samples >= 1
        assert Job.parse(job.model_dump_json(), "itself") == job
    assert message is None or message.startswith("DDPM_JOB is not valid: ")


def test_corrupted_files_of_the_store_are_rejected(tmp_path: Path) -> None:
    identity, store = an_identity(), Store.open(str(tmp_path))
    complete = run(store, identity, 20)
    valid = {name: (tmp_path / name).read_bytes() for name in ("manifest.json", "job.json")}

    @MANY_TIMES
    @given(corrupted(json.loads(valid["manifest.json"])))
    def read_manifest(data: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(data)
        found = store.read_manifest()
        if found is not None:
            ranges = [(shard.first, shard.last) for shard in found.shards]
            wanted = shards_of(found.n_samples, found.identity.batch_size)
            assert ranges == [(shard.first, shard.last) for shard in wanted]

    @MANY_TIMES
    @given(corrupted(json.loads(valid["job.json"])))
    def read_identity(data: bytes) -> None:
        (tmp_path / "job.json").write_bytes(data)
        try:
            found = store.read_identity()
        except OutputConflict as error:
            message = error.message
        else:
            message = None
            assert found is not None
        assert message is None or "job.json" in message

    read_manifest()
    (tmp_path / "manifest.json").write_bytes(valid["manifest.json"])
    read_identity()
    (tmp_path / "job.json").write_bytes(valid["job.json"])
    assert isinstance(complete, Manifest)
    assert store.read_manifest() == complete
