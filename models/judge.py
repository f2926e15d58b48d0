"""Measures how many samples are digits: `python models/judge.py out/samples.npy`.

The judge is a small network trained on real digits and on decoys, never on samples (classifier.py, decoys.py). It
accepts an image that it classifies as one of the ten digits with a confidence of at least 0.9. Held-out real digits
and decoys are judged as well, which shows how strict the judge is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import classifier
import decoys
import digits
import numpy as np
import torch
from classifier import Classifier
from rich import print
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm_inference.job import ModelSpec, SamplerSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.sampling.noise import NoiseSource
from ddpm_inference.sampling.samplers import sample
from ddpm_inference.sampling.schedule import schedule, spaced

WEIGHTS = Path(__file__).parent / "judge.safetensors"
SEED = 0


def kid(features: Tensor, others: Tensor) -> float:
    """Returns the unbiased squared MMD with the kernel (x·y / d + 1)³: arXiv 1801.01401, section 4. features (N, d)."""
    x, y = features.double(), others.double()
    n, m = len(x), len(y)
    within_x, within_y, between = (_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    return float(
        (within_x.sum() - within_x.trace()) / (n * (n - 1))
        + (within_y.sum() - within_y.trace()) / (m * (m - 1))
        - 2 * between.mean()
    )


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def nearest(images: Tensor, known: Tensor) -> float:
    """Returns the mean Euclidean distance over pixels of the images to their nearest neighbours among `known`."""
    return float(torch.cdist(images.flatten(1), known.flatten(1)).min(1).values.mean())


def untrained(count: int) -> Tensor:
    """Draws samples of a network with random weights, with DDIM in 20 steps: (count, 1, 28, 28) in [0, 1]."""
    torch.manual_seed(SEED)
    spec = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=32, img_size=28, time_embedding="step")
    chain = SamplerSpec(name="ddim", timesteps=1000, steps=20, eta=0.0, schedule="linear", variance=None)
    eps = predictor(build(spec).eval(), spec, spaced(chain.timesteps, chain.steps))
    noise = NoiseSource(SEED, torch.arange(count), spec.image_shape)
    with torch.inference_mode():
        x0 = sample(eps, noise.initial(), schedule(chain.schedule, chain.timesteps), chain, noise=noise)
    return (x0 + 1) / 2


def read(path: Path) -> Tensor:
    """Reads a samples.npy: float32 (N, 1, 28, 28) in [0, 1].

    Raises:
        ValueError: if the file contains anything else.
    """
    samples = np.load(path, allow_pickle=False)
    if samples.dtype != np.float32 or samples.ndim != 4 or samples.shape[1:] != (1, 28, 28):
        raise ValueError(f"{path} holds {samples.dtype} {samples.shape}, not float32 (N, 1, 28, 28)")
    if not (samples.min() >= 0 and samples.max() <= 1):
        raise ValueError(f"{path} holds values outside [0, 1]")
    return torch.from_numpy(samples)


def load_judge(train_anew: bool, data: digits.Digits) -> Classifier:
    """Returns the shipped judge, or trains it again and saves it in its place."""
    if train_anew:
        judge = classifier.train(data, SEED)
        save_file({key: value.contiguous() for key, value in judge.state_dict().items()}, WEIGHTS)
        return judge
    judge = Classifier()
    judge.load_state_dict(load_file(WEIGHTS))
    return judge.eval()


def acceptance(judge: Classifier, images: dict[str, Tensor]) -> Table:
    """Tabulates the accepted share of each kind of image, and how it divides into the ten digits."""
    table = Table(
        title=f"Classified as a digit with confidence {classifier.MIN_CONFIDENCE} or more", title_justify="left"
    )
    for heading in ("images", "N", "accepted", "of these digits 0 to 9, %"):
        table.add_column(heading, justify="left" if heading == "images" else "right", no_wrap=True)
    for name, group in images.items():
        verdicts = classifier.accepted(judge, group)
        confident = verdicts[verdicts >= 0]
        shares = " ".join(
            f"{round(100 * int((confident == digit).sum()) / max(1, len(confident))):2}" for digit in range(10)
        )
        table.add_row(name, str(len(group)), f"{len(confident) / len(group):.1%}", shares)
    return table


def distances(judge: Classifier, groups: dict[str, Tensor], data: digits.Digits, held_out: digits.Digits) -> Table:
    """Tabulates KID against held-out digits, on features scaled to a mean square of 1, and the distance in pixels to
    the nearest training digit, which would be near 0 for a network that had memorised the training set."""
    table = Table(title="Distance from real digits", title_justify="left")
    for heading in ("images", "KID", "nearest training digit"):
        table.add_column(heading, justify="left" if heading == "images" else "right", no_wrap=True)
    reference = classifier.in_batches(judge.features, held_out.images)
    scale = reference.square().mean().rsqrt()
    for name, group in groups.items():
        features = classifier.in_batches(judge.features, group)
        score = "" if group is held_out.images else f"{kid(scale * features, scale * reference):.4f}"
        table.add_row(name, score, f"{nearest(group, data.images):.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, nargs="+", help="samples.npy of a run, 1,000 samples or more")
    parser.add_argument("--train", action="store_true", help="train the judge again (minutes), and save it")
    options = parser.parse_args()
    torch.set_num_threads(1)  # one order of sums, so that training again gives the same judge
    data, held_out = digits.load()
    judge = load_judge(options.train, data)
    samples = {str(path): read(path) for path in options.samples}
    generator = torch.Generator().manual_seed(SEED)
    fakes = {f"decoys: {name}": make(held_out, generator) for name, make in decoys.MAKERS.items()}
    order = torch.randperm(len(data.images), generator=generator)
    real = {f"training digits, part {i + 1}": data.images[part] for i, part in enumerate(torch.split(order, 1000)[:4])}
    real["held-out digits"] = held_out.images
    known = {"held-out digits": held_out.images, **fakes, "untrained network": untrained(250)}
    print(acceptance(judge, samples | known))
    print(distances(judge, samples | real, data, held_out))


if __name__ == "__main__":
    main()
