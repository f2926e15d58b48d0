"""Equal identities draw equal bits, each in a fresh process: for any number of threads that `ShardSampler` is given.

The kernels of a machine decide whether another number of threads changes bits, so the tests do not say that it does.
They say that bits of two runs differ only where their identities differ.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

pytestmark = pytest.mark.slow

THREADS = (1, 2, 3, 5, 8, 16)
STEPS = (5, 7, 10, 13, 50)
NETWORKS = {
    "28x28x1": {"name": "Unet", "downs": (8, 16, 32), "img_size": 28, "channels": 1},
    "64x64x3": {"name": "Unet", "downs": (8, 16, 32), "img_size": 64, "channels": 3},
    "wide": {"name": "Unet", "downs": (12, 20), "img_size": 28, "channels": 1},
    "SimpleUnet": {"name": "SimpleUnet", "downs": (8, 16, 32), "img_size": 28, "channels": 1},
    "UNet2DModel": {
        "name": "UNet2DModel",
        "sample_size": (32, 32),
        "block_out_channels": (16, 32, 32),
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "UNet2DModel of classes": {
        "name": "UNet2DModel",
        "sample_size": (16, 24),
        "block_out_channels": (12, 20),
        "norm_num_groups": 4,
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D"),
        "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": 3,
    },
}

# Reads its arguments as JSON; draws the first samples of each network, and the tables of each number of steps; prints
# what it was drawn with, and the hash of the bits. Every network is drawn twice: with the number of threads in the
# identity, and with an identity that says 1, whatever the number that the sampler is given.
DRAW = """
import hashlib, json, sys
import torch
from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.hardware import find_hardware
from ddpm_inference.job import Identity, ModelSpec, SamplerSpec, Shard, UNet2DSpec
from ddpm_inference.models import build
from ddpm_inference.models.predictor import predictor
from ddpm_inference.plan import batch_size_for
from ddpm_inference.sampling.schedule import spaced
from ddpm_inference.shard_sampler import ShardSampler

threads, networks, steps, stored = json.loads(sys.argv[1])
bits = {}

def digest(*tensors):
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()

for label, fields in networks.items():
    if fields["name"] == "UNet2DModel":
        spec = UNet2DSpec(**fields)
    else:
        spec = ModelSpec(**fields, time_emb_dim=4, time_embedding="step")
    torch.manual_seed(0)
    checkpoint = Checkpoint(
        spec, None, {key: value.numpy() for key, value in build(spec).state_dict().items()}, "0" * 64
    )

    def draw(count, chain):
        identity = Identity(
            model_sha256="0" * 64, model=spec, seed=1, precision="fp32", execution="folded", device="cpu",
            sampler=SamplerSpec(name="ddim", timesteps=1000, steps=chain, eta=1, schedule="linear", variance=None),
            batch_size=batch_size_for(spec, "cpu"), torch=torch.__version__, threads=count,
            hardware=stored or find_hardware("cpu"),
        )
        shard = Shard(first=0, last=min(8, identity.batch_size) - 1)
        sampler = ShardSampler(checkpoint, identity, threads)
        bits[f"{identity.fingerprint} {label} {chain}"] = digest(
            torch.from_numpy(sampler.sample(shard, lambda done, steps: None))
        )

    for count in sorted({1, threads}):
        draw(count, 2)
    if label == "28x28x1":
        for chain in steps:
            draw(1, chain)
            torch.set_num_threads(threads)
            network = build(spec).eval()
            network.load_state_dict(checkpoint.state_dict())
            # The tables alone, as a caller other than `ShardSampler` makes them.
            model = predictor(network, spec, spaced(1000, chain))
            cells = [cell.cell_contents for cell in model.__wrapped__.__closure__]
            folded = next(content for content in cells if isinstance(content, torch.nn.Module))
            bits[f"tables {chain}"] = digest(*folded.buffers())
            assert torch.get_num_threads() == threads
print(json.dumps({"hardware": find_hardware("cpu").model_dump(), "bits": bits}))
"""


def draw(threads: int, variables: Mapping[str, str], stored: object = None, steps: tuple[int, ...] = STEPS) -> str:
    """Runs `DRAW` in a fresh process; returns its last line.

    Raises:
        CalledProcessError: if it fails; the output has the cause.
    """
    result = subprocess.run(
        [sys.executable, "-c", DRAW, json.dumps([threads, NETWORKS, steps, stored])],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()[-1]


@cache
def one_thread() -> dict[str, dict[str, str]]:
    """What a process with one thread drew."""
    drawn: dict[str, dict[str, str]] = json.loads(draw(1, {}))
    return drawn


def test_equal_identities_draw_equal_bits_with_any_threads() -> None:
    with ThreadPoolExecutor(2) as pool:
        others = list(pool.map(lambda threads: json.loads(draw(threads, {})), THREADS[1:]))
    bits: dict[str, str] = dict(one_thread()["bits"])
    assert len(bits) == len(NETWORKS) + 2 * len(STEPS)
    for drawn in others:
        # Each process repeats all that the one with one thread drew, and adds identities of its own.
        assert len(drawn["bits"]) == len(NETWORKS) * 2 + 2 * len(STEPS)
        assert {key: drawn["bits"][key] for key in one_thread()["bits"]} == one_thread()["bits"]
        assert not (drawn["bits"].keys() - one_thread()["bits"].keys()) & bits.keys()
        bits |= drawn["bits"]


@pytest.mark.parametrize("variable", [{"ATEN_CPU_CAPABILITY": "default"}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}])
def test_other_kernels_are_other_hardware_and_refused(variable: dict[str, str]) -> None:
    """A limit of the environment is what another CPU is: other kernels."""
    here = one_thread()
    other = json.loads(draw(1, variable, steps=()))
    assert other["hardware"] != here["hardware"]
    chains = {key for key in other["bits"] if not key.startswith("tables")}
    assert not chains & here["bits"].keys()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        draw(1, variable, stored=here["hardware"], steps=())
    message = refused.value.stderr
    for found in (here["hardware"], other["hardware"]):
        assert ", ".join(f"{name} {value}" for name, value in found.items()) in message
