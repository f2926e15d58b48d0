"""What goes wrong on workers: it is tried again, it costs no other shard, and its cause is told.

The samplers here are not torch's: they make recognisable samples at once, and fail where a test wants it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import cloudpickle

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.driver import Outcome, run
from ddpm_inference.errors import Incomplete, OutOfMemory, ResourcesUnavailable, StorageFailed, WorkerLost
from ddpm_inference.job import Identity, Job, Shard
from ddpm_inference.progress import Progress
from ddpm_inference.ray_backend.worker import MakeSampler
from ddpm_inference.store.shard_file import Samples
from tests.support.rays import Head

pytestmark = pytest.mark.xdist_group("an open head")

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 32


@dataclass
class Fake:
    """Sample i is the number i over 2^20 in every pixel. `trouble` is called with each shard before."""

    trouble: Callable[[Shard], None]

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        self.trouble(shard)
        callback(1, 1)
        index = np.arange(shard.first, shard.last + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
        return np.broadcast_to(index / np.float32(2**20), (shard.size, 1, 8, 8)).copy()


def no_trouble(_shard: Shard) -> None:
    pass


def making(trouble: Callable[[Shard], None] = no_trouble) -> MakeSampler:
    return lambda checkpoint, identity, threads: Fake(trouble)


@dataclass
class Seen:
    """A view that keeps what is said."""

    sentences: list[str] = field(default_factory=list)
    on_show: Callable[[Progress], None] = lambda progress: None

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def show(self, progress: Progress) -> None:
        self.on_show(progress)


@dataclass
class Bench:
    """Runs jobs of the fake samplers on a real head."""

    head: Head
    checkpoint: Path
    out: Path
    seen: Seen = field(default_factory=Seen)
    device: str = "cpu"

    def run(self, make_sampler: MakeSampler, shards: int = 8, **resources: float) -> Outcome:
        job = Job.model_validate(
            {
                "model": {"uri": str(self.checkpoint)},
                "n_samples": shards * BATCH,
                "batch_size": BATCH,
                "device": self.device,
                "output": {"uri": str(self.out)},
                "resources": {"workers": 2, "startup_timeout": 300, **resources},
            }
        )
        self.progress = Progress()
        return run(job, ray_address=self.head.gcs, view=self.seen, progress=self.progress, make_sampler=make_sampler)

    def stored(self) -> set[int]:
        """First samples of the stored shards."""
        return {int(path.name.partition("-")[0]) for path in (self.out / "shards").glob("*.npz")}

    def check_all(self, shards: int = 8) -> None:
        samples = np.load(self.out / "samples.npy")
        assert samples.shape == (shards * BATCH, 1, 8, 8)
        assert (samples[:, 0, 0, 0] * 2**20).astype(int).tolist() == list(range(shards * BATCH))


@pytest.fixture
def bench(open_head: Head, checkpoint: Path, tmp_path: Path) -> Bench:
    return Bench(open_head, checkpoint, tmp_path / "out")


def test_one_bad_shard_loses_no_other_and_is_all_that_is_left_to_do(bench: Bench) -> None:
    def trouble(shard: Shard) -> None:
        if shard.first == 64:
            raise Incomplete("samples 64 to 95 came out as NaN", hint="try another checkpoint")

    with pytest.raises(Incomplete) as failed:
        bench.run(making(trouble))
    assert failed.value.exit_code == 4
    assert failed.value.message == "samples 64 to 95 could not be sampled: samples 64 to 95 came out as NaN"
    assert failed.value.hint == "try another checkpoint"
    assert failed.value.__notes__ == [
        f"224 of 256 samples are kept in {bench.out}; run the same command again to resume"
    ]
    assert bench.stored() == set(range(0, 256, 32)) - {64}
    assert not (bench.out / "manifest.json").exists()

    assert bench.run(making()).sampled == 32
    bench.check_all()


def test_an_error_that_is_none_of_ours_is_named_as_it_is(bench: Bench) -> None:
    def trouble(shard: Shard) -> None:
        if shard.first == 0:
            raise ZeroDivisionError("division by zero")

    with pytest.raises(Incomplete, match="samples 0 to 31 could not be sampled: ZeroDivisionError: division by zero"):
        bench.run(making(trouble))
    assert len(bench.stored()) == 7


def test_a_shard_that_fails_once_is_tried_again_on_another_worker(bench: Bench, tmp_path: Path) -> None:
    marker, begun = tmp_path / "failed on", tmp_path / "begun"
    begun.mkdir()

    def trouble(shard: Shard) -> None:
        # Both workers are there before anything fails.
        (begun / str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(begun.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        if shard.first == 32 and not marker.exists():
            marker.write_text(str(os.getpid()))
            raise ValueError("just once")
        if shard.first == 32:
            assert marker.read_text() != str(os.getpid())

    bench.run(making(trouble))
    assert marker.exists()
    bench.check_all()


def test_a_run_in_which_everything_fails_ends_soon_with_the_cause(bench: Bench) -> None:
    def trouble(_shard: Shard) -> None:
        raise OutOfMemory("a batch of 32 does not fit", hint="give a smaller --batch_size")

    with pytest.raises(OutOfMemory, match="a batch of 32 does not fit") as failed:
        bench.run(making(trouble), shards=10_000)
    assert failed.value.hint == "give a smaller --batch_size"
    assert bench.stored() == set()


def test_a_worker_that_dies_half_way_is_replaced_by_ray(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def trouble(shard: Shard) -> None:
        if shard.first == 32 and not marker.exists():
            marker.touch()
            os._exit(1)

    bench.run(making(trouble))
    assert marker.exists()
    bench.check_all()


def test_a_shard_that_kills_its_worker_each_time_is_given_up_and_the_others_are_kept(
    bench: Bench, tmp_path: Path
) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()

    def trouble(shard: Shard) -> None:
        if shard.first == 64:
            (deaths / str(os.getpid())).touch()
            os._exit(1)

    with pytest.raises(WorkerLost, match="samples 64 to 95 could not be sampled: a worker died"):
        bench.run(making(trouble))
    assert bench.stored() == set(range(0, 256, 32)) - {64}
    assert 2 <= len(list(deaths.iterdir())) <= 12


def test_workers_that_cannot_start_say_why_and_nothing_is_written(bench: Bench) -> None:
    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> Fake:
        raise ResourcesUnavailable("Ray gave a worker its share of a GPU, but torch sees none there")

    with pytest.raises(ResourcesUnavailable, match="torch sees none there") as failed:
        bench.run(make)
    assert failed.value.exit_code == 3
    assert not bench.out.exists()


def test_a_worker_that_cannot_start_does_not_stop_the_others(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "the first"

    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> Fake:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return Fake(no_trouble)
        raise OutOfMemory("the network does not fit")

    bench.run(make)
    bench.check_all()


def test_a_place_that_fails_half_way_ends_the_run_with_what_is_stored_intact(bench: Bench) -> None:
    shards, aside = bench.out / "shards", bench.out / "aside"

    def break_it(progress: Progress) -> None:
        if progress.phase == "sampling" and progress.done >= 64 and not aside.exists():
            shards.rename(aside)
            shards.write_text("in the way")

    bench.seen.on_show = break_it
    with pytest.raises(StorageFailed, match="could not be") as failed:
        bench.run(making(), shards=3000)
    assert failed.value.exit_code == 4
    assert "run the same command again to resume" in failed.value.__notes__[0]
    shards.unlink()
    aside.rename(shards)
    kept = len(bench.stored())
    assert bench.progress.done == 32 * kept

    bench.seen.on_show = lambda progress: None
    assert bench.run(making(), shards=3000).sampled == 32 * (3000 - kept)
    bench.check_all(3000)


def assemble(folder: Path, kind: str, count: int, what: str) -> None:
    """Waits until so many workers of a kind are there, so that they hold what they hold at one time."""
    (folder / f"{kind} {os.getpid()}").write_text(what)
    deadline = time.monotonic() + 120
    while len(list(folder.glob(f"{kind} *"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} workers on {kind} did not come together")
        time.sleep(0.01)


def test_fractions_of_a_gpu_are_honoured_and_cpu_runs_hold_none(bench: Bench, tmp_path: Path) -> None:
    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> Fake:
        held = ray.get_runtime_context().get_assigned_resources()
        assemble(tmp_path, identity.device, 4, f"{held.get('GPU', 0)} {held['CPU']}")
        return Fake(no_trouble)

    def held(device: str) -> list[str]:
        return [path.read_text() for path in tmp_path.glob(f"{device} *")]

    share = {"num_gpus_per_task": 0.25, "num_cpus_per_task": 0.5}
    bench.run(make, **share, workers=4)
    assert held("cpu") == ["0 0.5"] * 4
    bench.device, bench.out = "cuda", tmp_path / "on cuda"
    bench.run(make, **share, workers=5)
    assert held("cuda") == ["0.25 0.5"] * 4
    assert any("room for 4 of 5 workers" in sentence for sentence in bench.seen.sentences)
