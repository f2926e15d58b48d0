"""Failures on workers: they are retried, cost no other shard, and their cause is reported.

The samplers are fakes without torch: they return recognisable samples at once, and fail where a test wants it.
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
class FakeSampler:
    """Sample i is i / 2^20 in every pixel. `fail` is called with each shard first, and may raise."""

    fail: Callable[[Shard], None]

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        self.fail(shard)
        callback(1, 1)
        index = np.arange(shard.first, shard.last + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
        return np.broadcast_to(index / np.float32(2**20), (shard.size, 1, 8, 8)).copy()


def no_failure(_shard: Shard) -> None:
    pass


def making(fail: Callable[[Shard], None] = no_failure) -> MakeSampler:
    return lambda checkpoint, identity, threads: FakeSampler(fail)


@dataclass
class RecordingView:
    """A view that records the messages."""

    messages: list[str] = field(default_factory=list)
    on_progress: Callable[[Progress], None] = lambda progress: None

    def show_message(self, message: str) -> None:
        self.messages.append(message)

    def show_progress(self, progress: Progress) -> None:
        self.on_progress(progress)


@dataclass
class Bench:
    """Runs jobs with fake samplers on a real head."""

    head: Head
    checkpoint: Path
    out: Path
    view: RecordingView = field(default_factory=RecordingView)
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
        return run(job, ray_address=self.head.gcs, view=self.view, progress=self.progress, make_sampler=make_sampler)

    def stored(self) -> set[int]:
        """Returns the first sample of each stored shard."""
        return {int(path.name.partition("-")[0]) for path in (self.out / "shards").glob("*.npz")}

    def check_all(self, shards: int = 8) -> None:
        samples = np.load(self.out / "samples.npy")
        assert samples.shape == (shards * BATCH, 1, 8, 8)
        assert (samples[:, 0, 0, 0] * 2**20).astype(int).tolist() == list(range(shards * BATCH))


@pytest.fixture
def bench(open_head: Head, checkpoint: Path, tmp_path: Path) -> Bench:
    return Bench(open_head, checkpoint, tmp_path / "out")


def test_a_failed_shard_costs_no_other_and_is_resumed(bench: Bench) -> None:
    def fail(shard: Shard) -> None:
        if shard.first == 64:
            raise Incomplete("samples 64 to 95 are NaN", hint="try another checkpoint")

    with pytest.raises(Incomplete) as failed:
        bench.run(making(fail))
    assert failed.value.exit_code == 4
    assert failed.value.message == "samples 64 to 95 could not be sampled: samples 64 to 95 are NaN"
    assert failed.value.hint == "try another checkpoint"
    assert failed.value.__notes__ == [
        f"224 of 256 samples are kept in {bench.out}; run the same command again to resume"
    ]
    assert bench.stored() == set(range(0, 256, 32)) - {64}
    assert not (bench.out / "manifest.json").exists()

    assert bench.run(making()).sampled == 32
    bench.check_all()


def test_an_unknown_error_is_named(bench: Bench) -> None:
    def fail(shard: Shard) -> None:
        if shard.first == 0:
            raise ZeroDivisionError("division by zero")

    with pytest.raises(Incomplete, match="samples 0 to 31 could not be sampled: ZeroDivisionError: division by zero"):
        bench.run(making(fail))
    assert len(bench.stored()) == 7


def test_a_failed_shard_is_retried_on_another_worker(bench: Bench, tmp_path: Path) -> None:
    marker, begun = tmp_path / "failed on", tmp_path / "begun"
    begun.mkdir()

    def fail(shard: Shard) -> None:
        # Wait until both workers have begun before anything fails.
        (begun / str(os.getpid())).touch()
        deadline = time.monotonic() + 60
        while len(list(begun.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        if shard.first == 32 and not marker.exists():
            marker.write_text(str(os.getpid()))
            raise ValueError("just once")
        if shard.first == 32:
            assert marker.read_text() != str(os.getpid())

    bench.run(making(fail))
    assert marker.exists()
    bench.check_all()


def test_a_run_in_which_everything_fails_ends_early(bench: Bench) -> None:
    def fail(_shard: Shard) -> None:
        raise OutOfMemory("a batch of 32 does not fit", hint="give a smaller --batch_size")

    with pytest.raises(OutOfMemory, match="a batch of 32 does not fit") as failed:
        bench.run(making(fail), shards=10_000)
    assert failed.value.hint == "give a smaller --batch_size"
    assert bench.stored() == set()


def test_a_worker_that_dies_is_restarted(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "died"

    def fail(shard: Shard) -> None:
        if shard.first == 32 and not marker.exists():
            marker.touch()
            os._exit(1)

    bench.run(making(fail))
    assert marker.exists()
    bench.check_all()


def test_a_shard_that_kills_its_workers_costs_no_other(bench: Bench, tmp_path: Path) -> None:
    deaths = tmp_path / "deaths"
    deaths.mkdir()

    def fail(shard: Shard) -> None:
        if shard.first == 64:
            (deaths / str(os.getpid())).touch()
            os._exit(1)

    with pytest.raises(WorkerLost, match="samples 64 to 95 could not be sampled: a worker died"):
        bench.run(making(fail))
    assert bench.stored() == set(range(0, 256, 32)) - {64}
    assert 2 <= len(list(deaths.iterdir())) <= 12


def test_if_no_worker_can_start_nothing_is_written(bench: Bench) -> None:
    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> FakeSampler:
        raise ResourcesUnavailable("Ray assigned a GPU to a worker, but torch does not see it")

    with pytest.raises(ResourcesUnavailable, match="torch does not see it") as failed:
        bench.run(make)
    assert failed.value.exit_code == 3
    assert not bench.out.exists()


def test_a_worker_that_cannot_start_does_not_stop_the_others(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "the first"

    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> FakeSampler:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            return FakeSampler(no_failure)
        raise OutOfMemory("the network does not fit")

    bench.run(make)
    bench.check_all()


def test_a_storage_failure_keeps_the_stored_shards(bench: Bench) -> None:
    shards, aside = bench.out / "shards", bench.out / "aside"

    def break_storage(progress: Progress) -> None:
        if progress.phase == "sampling" and progress.done >= 64 and not aside.exists():
            shards.rename(aside)
            shards.write_text("in the way")

    bench.view.on_progress = break_storage
    with pytest.raises(StorageFailed, match="could not be") as failed:
        bench.run(making(), shards=3000)
    assert failed.value.exit_code == 4
    assert "run the same command again to resume" in failed.value.__notes__[0]
    shards.unlink()
    aside.rename(shards)
    kept = len(bench.stored())
    assert bench.progress.done == 32 * kept

    bench.view.on_progress = lambda progress: None
    assert bench.run(making(), shards=3000).sampled == 32 * (3000 - kept)
    bench.check_all(3000)


def wait_for_workers(folder: Path, device: str, count: int, resources: str) -> None:
    """Waits until so many workers on a device are placed, so that they hold their resources at the same time."""
    (folder / f"{device} {os.getpid()}").write_text(resources)
    deadline = time.monotonic() + 120
    while len(list(folder.glob(f"{device} *"))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"fewer than {count} workers on {device} were placed")
        time.sleep(0.01)


def test_gpu_fractions_are_reserved_and_cpu_runs_reserve_none(bench: Bench, tmp_path: Path) -> None:
    def make(checkpoint: Checkpoint, identity: Identity, threads: int) -> FakeSampler:
        held = ray.get_runtime_context().get_assigned_resources()
        wait_for_workers(tmp_path, identity.device, 4, f"{held.get('GPU', 0)} {held['CPU']}")
        return FakeSampler(no_failure)

    def held(device: str) -> list[str]:
        return [path.read_text() for path in tmp_path.glob(f"{device} *")]

    resources = {"num_gpus_per_task": 0.25, "num_cpus_per_task": 0.5}
    bench.run(make, **resources, workers=4)
    assert held("cpu") == ["0 0.5"] * 4
    bench.device, bench.out = "cuda", tmp_path / "on cuda"
    bench.run(make, **resources, workers=5)
    assert held("cuda") == ["0.25 0.5"] * 4
    assert any("room for 4 of 5 workers" in message for message in bench.view.messages)
