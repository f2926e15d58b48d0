"""Measures the driver's memory over a million samples: it must not grow with N.

A fake network with negligible cost makes this a matter of minutes. All else is real: a local Ray, actors, shards in a
folder, samples.npy, grid.png, the manifest. `make bench` runs it, and a test runs it with fewer samples. A million
samples of 28 x 28 take 6 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.console import LogView
from ddpm_inference.driver import run
from ddpm_inference.job import Identity, Job, Shard
from ddpm_inference.progress import Progress
from ddpm_inference.store.shard_file import Samples

LIMIT_MB = 500


class Constant:
    """A sampler whose sample i is constant: the fractional part of i / 2^20."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def sample(self, shard: Shard, callback: Callable[[int, int], None]) -> Samples:
        index = np.arange(shard.first, shard.last + 1, dtype=np.float32) / np.float32(2**20)
        return np.broadcast_to((index % 1)[:, None, None, None], (shard.size, *self.shape)).copy()


def make_constant(checkpoint: Checkpoint, identity: Identity, threads: int) -> Constant:
    return Constant(identity.model.image_shape)


def measure(n_samples: int, batch_size: int, model: str, out: Path) -> dict[str, float]:
    """Runs a job once; returns the peak resident memory of this process in MB, shared memory included."""
    job = Job.model_validate(
        {
            "model": {"uri": model},
            "n_samples": n_samples,
            "batch_size": batch_size,
            "device": "cpu",
            "output": {"uri": str(out)},
        }
    )
    started = time.monotonic()
    outcome = run(job, ray_address="None", view=LogView(sys.stderr), progress=Progress(), make_sampler=make_constant)
    measured = {"n_samples": n_samples, "peak_mb": round(peak_mb()), "seconds": round(time.monotonic() - started)}
    assert outcome.manifest.n_samples == n_samples
    every = max(1, n_samples // 1000)
    stored = np.load(out / "samples.npy", mmap_mode="r")[::every, 0, 0, 0] * 2**20
    assert stored.tolist() == [index % 2**20 for index in range(0, n_samples, every)]
    return measured


def peak_mb() -> float:
    """Returns the peak resident memory of this process. getrusage would include that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_samples", type=int, default=1_000_000)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--model_path", default="builtin://mnist", help="determines the shape of the samples")
    parser.add_argument(
        "--folder", type=Path, help="for the samples, which are removed afterwards (default: a temporary folder)"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ddpm-memory-", dir=arguments.folder))
    try:
        measured = measure(arguments.n_samples, arguments.batch_size, arguments.model_path, folder / "out")
    finally:
        shutil.rmtree(folder)
    print(json.dumps(measured))
    if measured["peak_mb"] > LIMIT_MB:
        print(f"error: the driver needed more than {LIMIT_MB} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
