"""Trains the shipped pipeline of digits by class: `python models/train_digits_by_class.py` writes
models/digits-by-class/, a diffusers pipeline folder.

The loop is the one of diffusers' script train_unconditional.py, with class labels added: `UNet2DModel`,
`DDPMScheduler.add_noise`, `EMAModel`, `DDPMPipeline.save_pretrained`. The label of some digits is replaced with the
null class, so that the same network is also unconditional, as guidance needs it (arXiv 2207.12598).

The defaults are the recipe of the shipped folder. The random numbers of a step depend only on (seed, step), so an
interrupted run that is started again with the same options continues exactly. `torchrun --nproc_per_node 2
models/train_digits_by_class.py` starts two processes, each with half of every batch.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

import digits
import torch
import torch.distributed as dist
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel, compute_snr
from torch import Generator, Tensor, nn
from train import BETAS, HERE, MAX_GRADIENT_NORM, TIMESTEPS, average_gradients, process_group, stratified_timesteps

NULL_CLASS = 10  # the last embedding: the digits are classes 0 to 9
SAVE_EVERY = 250


class Options(argparse.Namespace):
    """A recipe, and the paths of its results."""

    widths: list[int]
    layers: int
    gamma: float
    drop: float
    steps: int
    warmup: int
    decay: int
    lr: float
    batch: int
    ema: float
    seed: int
    out: Path
    state: Path


def parse() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 16, 64], help="channels of each level")
    parser.add_argument("--layers", type=int, default=1, help="residual blocks of a level")
    parser.add_argument("--gamma", type=float, default=1.0, help="min-SNR-gamma loss weighting; 0: plain loss")
    parser.add_argument("--drop", type=float, default=0.15, help="share of digits that are given the null class")
    parser.add_argument("--steps", type=int, default=12_000, help="optimizer steps")
    parser.add_argument("--warmup", type=int, default=300, help="first steps, with rising learning rate")
    parser.add_argument("--decay", type=int, default=4_000, help="last steps, with the learning rate falling to 0")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (AdamW)")
    parser.add_argument("--batch", type=int, default=64, help="digits a step")
    parser.add_argument("--ema", type=float, default=0.999, help="highest decay of the averaged weights")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches, labels, timesteps and noise")
    parser.add_argument("--out", type=Path, default=HERE / "digits-by-class", help="the pipeline folder")
    parser.add_argument("--state", type=Path, default=Path("build/digits-by-class.pt"), help="to resume from")
    return parser.parse_args(namespace=Options())


def network(options: Options) -> UNet2DModel:
    """Builds the network: attention at the lowest resolution only, one embedding more than there are digits."""
    above = len(options.widths) - 1
    return UNet2DModel(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=tuple(options.widths),
        layers_per_block=options.layers,
        down_block_types=("DownBlock2D",) * above + ("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * above,
        attention_head_dim=16,
        norm_num_groups=8,
        num_class_embeds=NULL_CLASS + 1,
    )


@dataclass
class Run:
    """The state of a training run, saved to `--state`."""

    unet: UNet2DModel
    ema: EMAModel
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        torch.save(
            {
                "unet": self.unet.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
            },
            partial,
        )
        partial.replace(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]


@dataclass(frozen=True)
class Batch:
    """Digits float32 (B, 1, 28, 28) in [-1, 1]; labels int64 (B,), some the null class; timesteps int64 (B,); noise."""

    images: Tensor
    labels: Tensor
    timesteps: Tensor
    noise: Tensor

    def of(self, rank: int, processes: int) -> Batch:
        """Returns the part of one process."""
        parts = (self.images, self.labels, self.timesteps, self.noise)
        return Batch(*(part[rank::processes] for part in parts))


def draw_batch(data: digits.Digits, options: Options, step: int) -> Batch:
    generator = Generator().manual_seed(options.seed * 1_000_003 + step)
    chosen = torch.randint(len(data.images), (options.batch,), generator=generator)
    images = data.images[chosen] * 2 - 1
    dropped = torch.rand(options.batch, generator=generator) < options.drop
    labels = data.labels[chosen].masked_fill(dropped, NULL_CLASS)
    timesteps = stratified_timesteps(options.batch, generator)
    return Batch(images, labels, timesteps, torch.randn(images.shape, generator=generator))


def learning_rate(step: int, options: Options) -> float:
    """Returns the learning rate: rises over `--warmup`, then constant, then falls to 0 over `--decay`."""
    return options.lr * min(1.0, (step + 1) / options.warmup) * min(1.0, (options.steps - step) / options.decay)


def loss_of(unet: nn.Module, scheduler: DDPMScheduler, batch: Batch, gamma: float) -> Tensor:
    """Mean squared error of the predicted noise, weighted as in arXiv 2303.09556."""
    noisy = scheduler.add_noise(batch.images, batch.noise, batch.timesteps)
    predicted: Tensor = unet(noisy, batch.timesteps, batch.labels).sample
    errors = (predicted - batch.noise).square().mean(dim=(1, 2, 3))
    if gamma:
        snr = compute_snr(scheduler, batch.timesteps)
        errors = errors * snr.clamp(max=gamma) / snr
    return errors.mean()


def train(run: Run, scheduler: DDPMScheduler, data: digits.Digits, options: Options) -> None:
    """Trains until `options.steps`."""
    rank, processes = process_group()
    run.unet.train()
    while run.step < options.steps:
        begun = time.perf_counter()
        run.optimizer.param_groups[0]["lr"] = learning_rate(run.step, options)
        batch = draw_batch(data, options, run.step).of(rank, processes)
        loss = loss_of(run.unet, scheduler, batch, options.gamma)
        torch.autograd.backward(loss)
        average_gradients(run.unet)
        nn.utils.clip_grad_norm_(run.unet.parameters(), MAX_GRADIENT_NORM)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.ema.step(run.unet.parameters())
        run.step += 1
        run.seconds += time.perf_counter() - begun
        run.losses.append(float(loss.detach()))
        if run.step % SAVE_EVERY == 0 and rank == 0:
            run.save(options.state)
            recent = sum(run.losses[-SAVE_EVERY:]) / SAVE_EVERY
            print(f"step {run.step}: loss {recent:.5f}, {run.seconds / 60:.1f} minutes", flush=True)


def main() -> None:
    options = parse()
    # One thread: its sums have one order, and other load cannot stall it.
    torch.set_num_threads(1)
    if dist.is_torchelastic_launched():
        dist.init_process_group("gloo")
    torch.manual_seed(options.seed)
    unet = network(options).to(memory_format=torch.channels_last)  # trains faster on a CPU
    scheduler = DDPMScheduler(num_train_timesteps=TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    optimizer = torch.optim.AdamW(unet.parameters(), betas=BETAS, weight_decay=0.0)
    ema = EMAModel(unet.parameters(), decay=options.ema, use_ema_warmup=True, power=0.75, foreach=True)
    run = Run(unet, ema, optimizer)
    if options.state.exists():
        run.resume(options.state)
    data, _ = digits.load()
    train(run, scheduler, data, options)
    if process_group()[0] > 0:
        return
    run.ema.copy_to(unet.parameters())
    unet.eval().to(memory_format=torch.contiguous_format)  # as safetensors stores it
    DDPMPipeline(unet, scheduler).save_pretrained(options.out)
    print(f"{run.step * options.batch:,} digits seen in {run.seconds / 60:.1f} minutes; saved {options.out}")


if __name__ == "__main__":
    main()
