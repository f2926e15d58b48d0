"""Trains the shipped checkpoint: `python models/train.py`, from real digits to models/mnist.safetensors.

The defaults are the recipe of the shipped file. The random numbers of a step depend only on (seed, step), so an
interrupted run that is started again with the same options continues exactly. `torchrun --nproc_per_node 2
models/train.py` starts two processes, each with half of every batch.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path

import digits
import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
import torch.distributed as dist
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ddpm_inference import checkpoint
from ddpm_inference.job import ModelSpec, ScheduleName, TrainedSchedule
from ddpm_inference.models import build
from ddpm_inference.sampling.schedule import schedule

HERE = Path(__file__).parent
TIMESTEPS = 1000
BETAS = (0.9, 0.99)
MAX_GRADIENT_NORM = 1.0
MEASURE_EVERY = 500
NORM_BATCHES = 400
NORM_STREAM = 1 << 40  # random streams that no training step uses


class Options(argparse.Namespace):
    """A recipe, and the paths of its results."""

    downs: list[int]
    time_emb_dim: int
    schedule: ScheduleName
    gamma: float
    steps: int
    warmup: int
    decay: int
    lr: float
    batch: int
    ema: float
    seed: int
    out: Path
    curve: Path
    state: Path


def parse() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--downs", type=int, nargs="+", default=[24, 48, 96], help="channels of each level")
    parser.add_argument("--time_emb_dim", type=int, default=32, help="width of the sinusoidal embedding")
    parser.add_argument("--schedule", choices=["linear", "cosine"], default="cosine", help="of the noise")
    parser.add_argument("--gamma", type=float, default=1.0, help="min-SNR-gamma loss weighting; 0: plain loss")
    parser.add_argument("--steps", type=int, default=12_000, help="optimizer steps")
    parser.add_argument("--warmup", type=int, default=300, help="first steps, with rising learning rate")
    parser.add_argument("--decay", type=int, default=4_000, help="last steps, with the learning rate falling to 0")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (AdamW)")
    parser.add_argument("--batch", type=int, default=96, help="digits a step")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of the averaged weights, the shipped ones")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches, timesteps and noise")
    parser.add_argument("--out", type=Path, default=HERE / "mnist.safetensors", help="the checkpoint")
    parser.add_argument("--curve", type=Path, default=HERE / "loss.png", help="picture of the loss")
    parser.add_argument("--state", type=Path, default=Path("build/train.pt"), help="saved periodically, to resume from")
    return parser.parse_args(namespace=Options())


@dataclass
class Run:
    """The state of a training run, saved to `--state`."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
                "held_out": self.held_out,
            },
            partial,
        )
        partial.replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.losses, self.held_out = state["losses"], state["held_out"]


class Diffusion:
    """The forward process and its loss, arXiv 2006.11239 equation 14, weighted as in arXiv 2303.09556."""

    def __init__(self, name: ScheduleName, gamma: float) -> None:
        cumprod = torch.from_numpy(schedule(name, TIMESTEPS).alphas_cumprod.copy())
        snr = cumprod / (1 - cumprod)
        self.signal = cumprod.sqrt().float().view(-1, 1, 1, 1)
        self.noise = (1 - cumprod).sqrt().float().view(-1, 1, 1, 1)
        self.weight = (snr.clamp(max=gamma) / snr).float() if gamma else torch.ones(TIMESTEPS)

    def errors(self, network: nn.Module, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Returns (B,): squared error of eps at x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) eps, averaged over pixels."""
        x_t = (self.signal[t] * x0 + self.noise[t] * eps).contiguous(memory_format=torch.channels_last)
        # The mathematical attention has the fastest backward pass on a CPU at 49 pixels.
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            predicted: Tensor = network(x_t, t)
        return (predicted.float() - eps).square().mean(dim=(1, 2, 3))


def stratified_timesteps(count: int, generator: Generator) -> Tensor:
    """int64 (count,): one timestep out of each of `count` equal parts of 0..T-1, so no batch misses a region."""
    position = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return (position * TIMESTEPS).long().clamp(max=TIMESTEPS - 1)


def draw_batch(images: Tensor, options: Options, stream: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns (x_0 in [-1, 1], t, eps) of one step; `stream` is its number."""
    generator = Generator().manual_seed(options.seed * 1_000_003 + stream)
    x0 = images[torch.randint(len(images), (options.batch,), generator=generator)] * 2 - 1
    t = stratified_timesteps(options.batch, generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def process_group() -> tuple[int, int]:
    """Returns (rank of this process, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(network: nn.Module) -> None:
    """Replaces the gradients with their mean over all processes."""
    _, processes = process_group()
    if processes == 1:
        return
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = torch.split(flat / processes, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, parts, strict=True):
        gradient.copy_(mean.view_as(gradient))


def learning_rate(step: int, options: Options) -> float:
    """Returns the learning rate: rises over `--warmup`, then constant, then falls to 0 over `--decay`."""
    return options.lr * min(1.0, (step + 1) / options.warmup) * min(1.0, (options.steps - step) / options.decay)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of weights and of BatchNorm's statistics; short at first, to forget the start."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


@torch.no_grad()
def measure(average: nn.Module, diffusion: Diffusion, images: Tensor) -> float:
    """Plain eps loss on all of `images`, at fixed timesteps with fixed noise."""
    generator = Generator().manual_seed(0)
    t = stratified_timesteps(len(images), generator)[torch.randperm(len(images), generator=generator)]
    eps = torch.randn(images.shape, generator=generator)
    return float(diffusion.errors(average.eval(), images * 2 - 1, t, eps).mean())


@torch.no_grad()
def recompute_norms(average: nn.Module, diffusion: Diffusion, images: Tensor, options: Options) -> None:
    """Recomputes BatchNorm's statistics with the averaged weights, over all timesteps."""
    for module in average.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    average.train()
    for batch in range(NORM_BATCHES):
        diffusion.errors(average, *draw_batch(images, options, NORM_STREAM + batch))
    average.eval()


def train(run: Run, diffusion: Diffusion, images: Tensor, held_out: Tensor, options: Options) -> None:
    """Trains until `options.steps`."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("steps, {task.description}"), TimeRemainingColumn())
    rank, processes = process_group()
    run.network.train()
    with Progress(*columns, disable=rank > 0) as progress:
        bar = progress.add_task("", total=options.steps, completed=run.step)
        while run.step < options.steps:
            begun = time.perf_counter()
            run.optimizer.param_groups[0]["lr"] = learning_rate(run.step, options)
            x0, t, eps = (values[rank::processes] for values in draw_batch(images, options, run.step))
            loss = (diffusion.weight[t] * diffusion.errors(run.network, x0, t, eps)).mean()
            run.optimizer.zero_grad()
            torch.autograd.backward(loss)
            average_gradients(run.network)
            nn.utils.clip_grad_norm_(run.network.parameters(), MAX_GRADIENT_NORM)
            run.optimizer.step()
            update_average(run.average, run.network, options.ema, run.step)
            run.losses.append(loss.item())
            run.seconds += time.perf_counter() - begun
            run.step += 1
            if run.step % MEASURE_EVERY == 0 and rank == 0:
                run.held_out.append((run.step, measure(run.average, diffusion, held_out)))
                run.save(options.state)
                progress.console.print(f"step {run.step}: held-out loss {run.held_out[-1][1]:.5f}")
            progress.update(bar, advance=1, description=f"loss {run.losses[-1]:.4f}")


def draw_curve(run: Run, path: Path) -> None:
    """Plots the loss over steps: in training, as means of 100 steps, and on held-out digits."""
    mpl.use("agg")
    means = torch.tensor(run.losses[: len(run.losses) // 100 * 100]).view(-1, 100).mean(1).tolist()
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot([100 * (i + 1) for i in range(len(means))], means, label="training, as weighted")
    axes.plot(
        [at for at, _ in run.held_out],
        [loss for _, loss in run.held_out],
        label="held out, plain, averaged weights",
    )
    axes.set(xlabel="step", ylabel="squared error of eps", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    options = parse()
    # One thread: its sums have one order, and other load cannot stall it.
    torch.set_num_threads(1)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    torch.manual_seed(options.seed)
    spec = ModelSpec(
        name="Unet",
        downs=tuple(options.downs),
        time_emb_dim=options.time_emb_dim,
        img_size=28,
        time_embedding="step",
    )
    network = build(spec).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), betas=BETAS, weight_decay=0.0)
    run = Run(network, copy.deepcopy(network), optimizer)
    if options.state.exists():
        run.resume(options.state)
    data, held_out = digits.load()
    diffusion = Diffusion(options.schedule, options.gamma)
    train(run, diffusion, data.images, held_out.images, options)
    if process_group()[0] > 0:
        return
    recompute_norms(run.average, diffusion, data.images, options)
    loss = measure(run.average, diffusion, held_out.images)
    print(f"{run.step * options.batch:,} digits seen in {run.seconds / 60:.1f} minutes; held-out loss {loss:.5f}")
    recipe = {
        key: str(getattr(options, key)) for key in ("gamma", "steps", "warmup", "decay", "lr", "batch", "ema", "seed")
    }
    trained = TrainedSchedule(name=options.schedule, timesteps=TIMESTEPS, variance="small")
    checkpoint.save(options.out, run.average.state_dict(), spec, trained, recipe | {"held_out_loss": f"{loss:.5f}"})
    draw_curve(run, options.curve)


if __name__ == "__main__":
    main()
