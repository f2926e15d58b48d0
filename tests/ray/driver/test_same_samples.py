"""Sample i has the same bits for any worker, any order, and after any interruption."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ddpm_inference.checkpoint import load
from ddpm_inference.console import QuietView
from ddpm_inference.driver import Outcome, run
from ddpm_inference.errors import Interrupted
from ddpm_inference.job import Job, ModelRequest, Shard, shards_of
from ddpm_inference.progress import Progress
from ddpm_inference.shard_sampler import ShardSampler
from ddpm_inference.store import Store
from tests.support.rays import Head, workers

pytestmark = pytest.mark.xdist_group("an open head")

# Ten shards of about half a second each, the last one short.
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
    return run(job, ray_address=head.gcs, view=QuietView(), progress=progress or Progress())


def hashes(samples: np.ndarray) -> list[str]:
    return [hashlib.sha256(sample.tobytes()).hexdigest() for sample in samples]


def stored(out: Path) -> list[str]:
    return hashes(np.load(out / "samples.npy"))


@pytest.fixture(scope="module")
def expected(open_head: Head, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The hash of each sample, drawn by one sampler in this process, without Ray, in reverse order."""
    out = tmp_path_factory.mktemp("identity") / "out"
    draw(open_head, checkpoint, out, n_samples=1)
    identity = Store.open(str(out)).read_identity()
    assert identity is not None
    sampler = ShardSampler(load(checkpoint, ModelRequest(uri=str(checkpoint))), identity, threads=1)
    shards = list(shards_of(N_SAMPLES, identity.batch_size))
    drawn = [hashes(sampler.sample(shard, lambda done, steps: None)) for shard in reversed(shards)]
    in_order = [one for batch in reversed(drawn) for one in batch]
    assert len(set(in_order)) == N_SAMPLES
    return in_order


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_workers_draws_the_same(
    count: int, open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]
) -> None:
    draw(open_head, checkpoint, tmp_path / "out", workers=count)
    assert stored(tmp_path / "out") == expected


def test_a_resumed_and_extended_run_draws_the_same(
    open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]
) -> None:
    class Interrupting(Progress):
        def shard_stored(self, shard: Shard) -> None:
            super().shard_stored(shard)
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(Interrupted) as interrupted:
        # One worker has two shards in flight, so at most three of the four can be stored by then.
        draw(open_head, checkpoint, out, n_samples=110, workers=1, progress=Interrupting())
    kept = len(list((out / "shards").glob("*.npz")))
    assert 1 <= kept < 4
    assert f"{32 * kept} of 110 samples are kept in {out}" in interrupted.value.__notes__[0]

    outcome = draw(open_head, checkpoint, out, n_samples=110, workers=3)
    assert outcome.sampled == 110 - 32 * kept
    assert stored(out) == expected[:110]

    outcome = draw(open_head, checkpoint, out, workers=1)
    # The three full shards are kept; the short one is drawn again as part of a full one.
    assert outcome.sampled == N_SAMPLES - 96
    assert stored(out) == expected
    assert not (out / "shards" / "000000096-000000109.npz").exists()


def test_a_run_with_a_killed_worker_draws_the_same(
    open_head: Head, checkpoint: Path, tmp_path: Path, expected: list[str]
) -> None:
    class Killing(Progress):
        killed = 0

        def shard_stored(self, shard: Shard) -> None:
            super().shard_stored(shard)
            if not self.killed:
                self.killed = workers(open_head.process.pid)[0]
                os.kill(self.killed, signal.SIGKILL)

    killing = Killing()
    outcome = draw(open_head, checkpoint, tmp_path / "out", progress=killing)
    assert killing.killed
    assert outcome.sampled == N_SAMPLES
    assert stored(tmp_path / "out") == expected


def test_a_complete_run_needs_no_ray(open_head: Head, checkpoint: Path, tmp_path: Path) -> None:
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
    outcome = run(job, ray_address="ray://no-such-host.invalid:1", view=QuietView(), progress=Progress())
    assert (outcome.sampled, outcome.manifest.n_samples) == (0, 3)
