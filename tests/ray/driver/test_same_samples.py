"""Sample i is bit for bit the same, whoever draws it, in which order, and after whatever happened."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ddpm_inference.checkpoint import load
from ddpm_inference.console import Quiet
from ddpm_inference.driver import Outcome, run
from ddpm_inference.errors import Interrupted
from ddpm_inference.job import Job, ModelRequest, Shard, shards_of
from ddpm_inference.progress import Progress
from ddpm_inference.shard_sampler import ShardSampler
from ddpm_inference.store import Store
from tests.support.rays import Head, workers

pytestmark = pytest.mark.xdist_group("an open head")

# Ten shards, the last one short; each takes about half a second.
N_SAMPLES = 300


def draw(
    head: Head,
    checkpoint: Path,
    out: Path,
    *,
    n_samples: int = N_SAMPLES,
    workers: int = 2,
    progress: Progress | None = None,
) -> Outcome:
    job = Job.model_validate(
        {
            "model": {"uri": str(checkpoint)},
            "n_samples": n_samples,
            "seed": 5,
            "sampler": {"name": "ddpm", "steps": 100},
            "device": "cpu",
            "output": {"uri": str(out)},
            "resources": {"workers": workers, "startup_timeout": 300},
        }
    )
    return run(job, ray_address=head.gcs, view=Quiet(), progress=progress or Progress())


def hashes(samples: np.ndarray) -> list[str]:
    return [hashlib.sha256(sample.tobytes()).hexdigest() for sample in samples]


def stored(out: Path) -> list[str]:
    return hashes(np.load(out / "samples.npy"))


@pytest.fixture(scope="module")
def expected(open_head: Head, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The hash of each sample as one sampler in this process draws it, without Ray, from the last to the first."""
    out = tmp_path_factory.mktemp("identity") / "out"
    draw(open_head, checkpoint, out, n_samples=1)
    identity = Store.open(str(out)).read_identity()
    assert identity is not None
    sampler = ShardSampler(load(checkpoint, ModelRequest(uri=str(checkpoint))), identity, threads=1)
    shards = list(shards_of(N_SAMPLES, identity.batch_size))
    drawn = [hashes(sampler.sample(shard, lambda done, steps: None)) for shard in reversed(shards)]
    found = [one for batch in reversed(drawn) for one in batch]
    assert len(set(found)) == N_SAMPLES
    return found


@pytest.mark.parametrize("count", [1, 3])
def test_for_any_number_of_workers(
    count: int, open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]
) -> None:
    draw(open_head, checkpoint, tmp_path / "out", workers=count)
    assert stored(tmp_path / "out") == expected


def test_after_a_resume_with_other_workers_and_growth(
    open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]
) -> None:
    class Interrupting(Progress):
        def finished(self, shard: Shard) -> None:
            super().finished(shard)
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(Interrupted) as interrupted:
        # One worker has two shards at a time, so that not all four can have arrived by then.
        draw(open_head, checkpoint, out, n_samples=110, workers=1, progress=Interrupting())
    kept = len(list((out / "shards").glob("*.npz")))
    assert 1 <= kept < 4
    assert f"{32 * kept} of 110 samples are kept in {out}" in interrupted.value.__notes__[0]

    outcome = draw(open_head, checkpoint, out, n_samples=110, workers=3)
    assert outcome.sampled == 110 - 32 * kept
    assert stored(out) == expected[:110]

    outcome = draw(open_head, checkpoint, out, workers=1)
    # The three whole shards are kept; the short one is drawn again as a part of a whole one.
    assert outcome.sampled == N_SAMPLES - 96
    assert stored(out) == expected
    assert not (out / "shards" / "000000096-000000109.npz").exists()


def test_after_a_worker_was_killed(open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]) -> None:
    class Killing(Progress):
        killed = 0

        def finished(self, shard: Shard) -> None:
            super().finished(shard)
            if not self.killed:
                self.killed = workers(open_head.process.pid)[0]
                os.kill(self.killed, signal.SIGKILL)

    killing = Killing()
    outcome = draw(open_head, checkpoint, tmp_path / "out", progress=killing)
    assert killing.killed
    assert outcome.sampled == N_SAMPLES
    assert stored(tmp_path / "out") == expected


def test_all_being_there_needs_no_ray(open_head: Head, checkpoint: Path, tmp_path: Path) -> None:
    draw(open_head, checkpoint, tmp_path / "out", n_samples=3)
    job = Job.model_validate(
        {
            "model": {"uri": str(checkpoint)},
            "n_samples": 2,
            "seed": 5,
            "sampler": {"name": "ddpm", "steps": 100},
            "output": {"uri": str(tmp_path / "out")},
        }
    )
    outcome = run(job, ray_address="ray://no-such-host.invalid:1", view=Quiet(), progress=Progress())
    assert (outcome.sampled, outcome.manifest.n_samples) == (0, 3)
