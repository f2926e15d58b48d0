"""Whatever a Job, a manifest or a job.json says, it is read or refused with a sentence; nothing else happens."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Job, shards_of
from ddpm_inference.store import Manifest, Store
from tests.support.hostile import ANYTHING, MAX_EXAMPLES
from tests.support.storing import an_identity, run

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
def spoilt(draw: st.DrawFn, sound: dict[str, Any]) -> bytes:
    """A document of which up to three values, or some of its bytes, are others."""
    document = copy.deepcopy(sound)
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
@given(spoilt(JOB))
def test_a_job_is_read_or_refused(data: bytes) -> None:
    try:
        job = Job.parse(data, "DDPM_JOB")
    except InvalidSpec as error:
        said = error.message
    else:
        said = ""
        assert job.n_samples >= 1
        assert Job.parse(job.model_dump_json(), "itself") == job
    assert not said or said.startswith("DDPM_JOB is not valid: ")


def test_a_stores_own_documents_are_believed_only_if_they_are_sound(tmp_path: Path) -> None:
    identity, store = an_identity(), Store.open(str(tmp_path))
    complete = run(store, identity, 20)
    sound = {name: (tmp_path / name).read_bytes() for name in ("manifest.json", "job.json")}

    @MANY_TIMES
    @given(spoilt(json.loads(sound["manifest.json"])))
    def read_manifest(data: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(data)
        found = store.read_manifest()
        if found is not None:
            ranges = [(shard.first, shard.last) for shard in found.shards]
            wanted = shards_of(found.n_samples, found.identity.batch_size)
            assert ranges == [(shard.first, shard.last) for shard in wanted]

    @MANY_TIMES
    @given(spoilt(json.loads(sound["job.json"])))
    def read_identity(data: bytes) -> None:
        (tmp_path / "job.json").write_bytes(data)
        try:
            found = store.read_identity()
        except OutputConflict as error:
            said = error.message
        else:
            said = "job.json"
            assert found is not None
        assert "job.json" in said

    read_manifest()
    (tmp_path / "manifest.json").write_bytes(sound["manifest.json"])
    read_identity()
    (tmp_path / "job.json").write_bytes(sound["job.json"])
    assert isinstance(complete, Manifest)
    assert store.read_manifest() == complete
