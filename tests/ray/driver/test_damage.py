"""Damage to a complete job: the same command draws it again, and what it says of kept samples is true."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.driver import Outcome, run
from ddpm_inference.errors import DdpmError, Interrupted
from ddpm_inference.job import Identity, Job, ResourceRequest, Shard
from ddpm_inference.progress import Progress
from ddpm_inference.store.shard_file import Samples, encode
from ddpm_inference.verify import repair, verify
from tests.support.rays import Head

pytestmark = pytest.mark.xdist_group("an open head")

# The workers cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 8
SHARD = "shards/000000008-000000015.npz"


@dataclass
class FakeSampler:
    """Sample i is i / 2^20 in every pixel. A shard takes some seconds."""

    seconds: float

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        time.sleep(self.seconds)
        index = np.arange(shard.first, shard.last + 1, dtype=np.float32).reshape(-1, 1, 1, 1)
        return np.broadcast_to(index / np.float32(2**20), (shard.size, 1, 8, 8)).copy()


@dataclass
class Bench:
    """Runs a job of 40 samples in 5 shards on a real head, and damages what it stored."""

    head: Head
    checkpoint: Path
    out: Path
    messages: list[str] = field(default_factory=list)
    on_progress: Callable[[Progress], None] = lambda progress: None
    seconds_per_shard: float = 0.0

    def show_message(self, message: str) -> None:
        self.messages.append(message)

    def show_progress(self, progress: Progress) -> None:
        self.on_progress(progress)

    def run(self, n_samples: int = 40, *, overwrite: bool = False) -> Outcome:
        job = Job.model_validate(
            {
                "model": {"uri": str(self.checkpoint)},
                "n_samples": n_samples,
                "batch_size": BATCH,
                "device": "cpu",
                "output": {"uri": str(self.out), "overwrite": overwrite},
                "resources": {"workers": 1, "startup_timeout": 300},
            }
        )
        self.progress = Progress()
        return run(job, ray_address=self.head.gcs, view=self, progress=self.progress, make_sampler=self.make_sampler())

    def make_sampler(self) -> Callable[[Checkpoint, Identity, int], FakeSampler]:
        seconds = self.seconds_per_shard
        return lambda checkpoint, identity, threads: FakeSampler(seconds)

    def fail(self, *, overwrite: bool = False) -> DdpmError:
        with pytest.raises(DdpmError) as failed:
            self.run(overwrite=overwrite)
        return failed.value

    def flip(self, name: str, *, keep_time: bool = False) -> None:
        """Flips a bit in the middle of a file."""
        path = self.out / name
        before = path.stat()
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if keep_time else 1_000_000)))

    def contents(self) -> dict[str, bytes]:
        """Returns the content of all files but the record of when they were hashed."""
        files = {str(path.relative_to(self.out)): path for path in self.out.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if name != "verified.json"}

    def undated(self) -> dict[str, bytes]:
        """Returns `contents` without the dates in file names."""
        return {name[:12] + name[25:] if name.startswith("ray_") else name: it for name, it in self.contents().items()}

    def stored(self) -> int:
        """Returns the number of samples in stored shards."""
        names = [path.stem.split("-") for path in (self.out / "shards").glob("*.npz")]
        return sum(int(last) - int(first) + 1 for first, last in names)


@pytest.fixture
def bench(open_head: Head, checkpoint: Path, tmp_path: Path) -> Bench:
    return Bench(open_head, checkpoint, tmp_path / "out")


def test_damaged_files_are_drawn_again(bench: Bench) -> None:
    bench.run()
    before = bench.undated()

    def heal(drawn: int, *messages: str) -> None:
        bench.messages.clear()
        assert bench.run().sampled == drawn
        assert bench.undated() == before
        assert verify(str(bench.out)).is_whole
        for message in messages:
            assert f"{bench.out}/{message}" in bench.messages
        bench.messages.clear()
        assert bench.run().sampled == 0
        assert bench.messages == []

    bad = "is damaged: its sha256 is not that of the manifest"
    bench.flip(SHARD)
    heal(8, f"{SHARD} {bad}; it is drawn again")

    bench.flip("samples.npy")
    heal(0, f"samples.npy {bad}; it is written again")

    # Bits that rot change no time, so nothing is noticed until the shards are read to write samples.npy again.
    bench.flip(SHARD, keep_time=True)
    (bench.out / "samples.npy").unlink()
    heal(8, f"{SHARD} {bad}; it is drawn again", "samples.npy is missing; it is written again")

    # As an earlier version left it.
    (bench.out / "verified.json").unlink()
    bench.flip(SHARD, keep_time=True)
    heal(8, f"{SHARD} {bad}; it is drawn again")

    (bench.out / "job.json").write_text("{")
    heal(0, "job.json was lost or damaged; it is written again")

    # Intact by its own checksums, but not the shard that the manifest lists.
    fingerprint = json.loads((bench.out / "manifest.json").read_text())["fingerprint"]
    forged = encode(Shard(first=8, last=15), np.zeros((8, 1, 8, 8), np.float32), fingerprint)
    (bench.out / SHARD).write_bytes(forged)
    heal(8, f"{SHARD} {bad}; it is drawn again")


def test_damage_is_repaired_with_growth_and_with_fewer_samples(bench: Bench) -> None:
    bench.run(48)
    grown = bench.undated()
    shutil.rmtree(bench.out)
    bench.run(40)
    bench.flip(SHARD, keep_time=True)
    assert bench.run(48).sampled == 16
    assert bench.undated() == grown
    bench.flip("shards/000000040-000000047.npz")
    assert bench.run(40).sampled == 8
    assert bench.undated() == grown


def test_verify_repairs_under_the_same_identity(bench: Bench) -> None:
    bench.run()
    before = bench.undated()
    bench.flip(SHARD, keep_time=True)
    report = verify(str(bench.out))
    assert not report.is_whole
    repaired = repair(
        report,
        str(bench.checkpoint),
        resources=ResourceRequest(workers=1, startup_timeout=300),
        ray_address=bench.head.gcs,
        view=bench,
        make_sampler=bench.make_sampler(),
    )
    assert repaired.is_whole
    assert bench.undated() == before


def test_the_hint_after_overwrite_keeps_what_was_drawn(bench: Bench) -> None:
    bench.run(16)

    def interrupt(progress: Progress) -> None:
        if progress.phase == "sampling" and progress.done >= BATCH:
            raise KeyboardInterrupt

    # The progress is shown about once a second.
    bench.on_progress, bench.seconds_per_shard = interrupt, 0.6
    error = bench.fail(overwrite=True)
    assert isinstance(error, Interrupted)
    kept = bench.stored()
    assert 8 <= kept < 40
    assert error.__notes__ == [
        f"{kept} of 40 samples are kept in {bench.out}; run the same command again without --overwrite to resume"
    ]
    bench.on_progress = lambda progress: None
    assert bench.run().sampled == 40 - kept


def test_a_folder_that_is_removed_during_the_run_counts_nothing(bench: Bench) -> None:
    removed: list[int] = []

    def remove(progress: Progress) -> None:
        if progress.phase == "sampling" and progress.done >= 2 * BATCH and not removed:
            removed.append(progress.done)
            shutil.rmtree(bench.out)

    bench.on_progress, bench.seconds_per_shard = remove, 0.6
    error = bench.fail()
    assert removed
    kept = bench.stored()
    assert kept <= 40 - 2 * BATCH
    assert error.__notes__ == [f"{kept} of 40 samples are kept in {bench.out}; run the same command again to resume"]
    assert bench.run().sampled == 40 - kept
    assert verify(str(bench.out)).is_whole


def test_growth_and_overwrite_remove_earlier_dated_copies(bench: Bench) -> None:
    def copies() -> list[Path]:
        return sorted(bench.out.glob("ray_samples_*"))

    def age() -> None:
        """Gives the copies the names of another day."""
        text = (bench.out / "verified.json").read_text()
        for path in set(copies()) - {foreign}:
            older = f"ray_samples_20200101-0000_{path.name.rpartition('_')[2]}"
            path.rename(path.with_name(older))
            text = text.replace(path.name, older)
        (bench.out / "verified.json").write_text(text)

    foreign = bench.out / "ray_samples_20190101-0000_grid.png"
    bench.run(16)
    foreign.write_bytes(b"of the original program")
    for n_samples, overwrite, recorded in ((24, False, True), (24, True, True), (32, False, False)):
        age()
        if not recorded:
            (bench.out / "verified.json").unlink()
        bench.run(n_samples, overwrite=overwrite)
        npy, png = (path for path in copies() if path != foreign)
        assert npy.read_bytes() == (bench.out / "samples.npy").read_bytes()
        assert png.read_bytes() == (bench.out / "grid.png").read_bytes()
        assert foreign.exists()
