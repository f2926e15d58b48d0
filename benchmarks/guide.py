"""Compares the guide's way of sampling on Ray with this program: same network, same T, same local Ray.

The guide's way is reimplemented from its description: one task a sample, batch 1, each task builds the network and
loads its weights, the schedule's tensors are sent with every task, eager execution.

Cold includes everything: starting Ray and the workers, sampling, writing files. Warm is the rate with running workers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
import torch
from networks import GUIDE
from rich.console import Console
from rich.table import Table
from timing import machine
from torch import Tensor

from ddpm_inference.checkpoint import save
from ddpm_inference.driver import run
from ddpm_inference.job import Job, TrainedSchedule
from ddpm_inference.models import build
from ddpm_inference.progress import Phase, Progress
from ddpm_inference.ray_backend.address import RayTarget
from ddpm_inference.ray_backend.connection import connected
from ddpm_inference.sampling.schedule import schedule


@dataclass(frozen=True)
class Scale:
    """The size of the runs."""

    timesteps: int
    guide_samples: int
    samples: int
    fast_samples: int
    repeats: int


FULL = Scale(timesteps=1000, guide_samples=16, samples=128, fast_samples=1280, repeats=5)
SHORT = Scale(timesteps=100, guide_samples=8, samples=64, fast_samples=128, repeats=1)


@dataclass(frozen=True)
class Measured:
    """One run: seconds in all (cold), and samples a second with running workers (rate)."""

    samples: int
    cold: float
    rate: float


def guide_task(index: int, path: str, betas: Tensor, acp: Tensor, acp_prev: Tensor) -> tuple[int, np.ndarray]:
    """Draws one sample: arXiv 2006.11239, algorithm 2, with the variance "large"."""
    network = build(GUIDE)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval()
    with torch.no_grad():
        x = torch.randn(1, *GUIDE.image_shape)
        for t in reversed(range(len(betas))):
            eps = network(x, torch.full((1,), t))
            x0 = (torch.sqrt(1 / acp[t]) * x - torch.sqrt(1 / acp[t] - 1) * eps).clamp(-1, 1)
            x = (betas[t] * torch.sqrt(acp_prev[t]) * x0 + (1 - acp_prev[t]) * torch.sqrt(1 - betas[t]) * x) / (
                1 - acp[t]
            )
            if t:
                x = x + torch.sqrt(betas[t]) * torch.randn_like(x)
    return index, ((x[0] + 1) / 2).numpy()


def guide(scale: Scale, folder: Path) -> Measured:
    """Runs the guide's way once."""
    path = folder / "net.pt"
    torch.save(network().state_dict(), path)
    made = schedule("linear", scale.timesteps)
    acp = torch.tensor(made.alphas_cumprod, dtype=torch.float32)
    tensors = (torch.tensor(made.betas, dtype=torch.float32), acp, torch.cat([torch.ones(1), acp[:-1]]))

    def draw(count: int, timesteps: int) -> None:
        pending = [task.remote(index, str(path), *(each[:timesteps] for each in tensors)) for index in range(count)]
        done = []
        while pending:
            ready, pending = ray.wait(pending, num_returns=1)
            done.append(ray.get(ready[0]))
        np.save(folder / "all.npy", np.stack([image for _, image in sorted(done, key=lambda pair: pair[0])]))

    started = time.perf_counter()
    with connected(RayTarget(None, "for the guide")):
        task = ray.remote(num_cpus=1)(guide_task)
        # Ray reuses worker processes: after a few short tasks each has imported torch.
        draw(8, 1)
        warm = time.perf_counter()
        draw(scale.guide_samples, scale.timesteps)
        seconds = time.perf_counter() - warm
    return Measured(scale.guide_samples, time.perf_counter() - started, scale.guide_samples / seconds)


class Clock:
    """A view that records when each phase began."""

    def __init__(self) -> None:
        self.began: dict[Phase, float] = {}

    def show_message(self, message: str) -> None:
        pass

    def show_progress(self, progress: Progress) -> None:
        self.began.setdefault(progress.phase, time.perf_counter())


def ours(samples: int, sampler: str, scale: Scale, folder: Path) -> Measured:
    """Runs this program once."""
    path = folder / "net.safetensors"
    save(path, network().state_dict(), GUIDE, TrainedSchedule(name="linear", timesteps=scale.timesteps))
    job = Job.model_validate(
        {
            "model": {"uri": str(path)},
            "n_samples": samples,
            "sampler": {"name": sampler},
            "device": "cpu",
            "output": {"uri": str(folder / "out"), "overwrite": True},
        }
    )
    clock, started = Clock(), time.perf_counter()
    run(job, ray_address="None", view=clock, progress=Progress())
    cold = time.perf_counter() - started
    return Measured(samples, cold, samples / (clock.began["writing"] - clock.began["sampling"]))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(GUIDE)


def median(runs: Sequence[Measured]) -> Measured:
    return Measured(
        runs[0].samples, statistics.median(run.cold for run in runs), statistics.median(run.rate for run in runs)
    )


def measure(scale: Scale) -> dict[str, Measured]:
    """Interleaves the runs, so that a change in the machine's load affects all of them."""
    ways = {
        f"guide, ddpm {scale.timesteps}": lambda folder: guide(scale, folder),
        f"ours, ddpm {scale.timesteps}": lambda folder: ours(scale.samples, "ddpm", scale, folder),
        "ours, dpmpp 20": lambda folder: ours(scale.fast_samples, "dpmpp", scale, folder),
    }
    runs: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in range(scale.repeats):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory(prefix="ddpm-guide-") as folder:
                runs[name].append(way(Path(folder)))
    return {name: median(measured) for name, measured in runs.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help=f"less than a minute, with T = {SHORT.timesteps}")
    scale = SHORT if parser.parse_args().short else FULL
    results = measure(scale)
    base = next(iter(results.values()))
    table = Table(title=f"Unet 8 16 32, 28 x 28, fp32, T = {scale.timesteps}; {machine()}", title_justify="left")
    for column in (
        "",
        "samples",
        "cold: s in all",
        "cold: samples/s",
        "warm: samples/s",
        "warm: relative to the guide",
    ):
        table.add_column(column, justify="right" if column else "left")
    for name, one in results.items():
        rates = (f"{one.samples / one.cold:.2f}", f"{one.rate:.2f}", f"{one.rate / base.rate:.1f} x")
        table.add_row(name, str(one.samples), f"{one.cold:.1f}", *rates)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
