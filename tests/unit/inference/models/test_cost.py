"""The cost of a network, from which the default batch is chosen, against what an evaluation takes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddpm_inference.job import Cost, UNet2DSpec, default_batch_size
from ddpm_inference.models.families import family_of

COURSE: dict[str, Any] = {
    "sample_size": (32, 32),
    "block_out_channels": (64, 128, 128, 256),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}
CHURCH: dict[str, Any] = {
    "sample_size": (256, 256),
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": (*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4),
}
# One evaluation of each takes a second or two: the course's shape, church's at 64x64, and at half the widths 256x256.
MEASURED = {
    "course, 16 images of 32x32": (COURSE, 16),
    "church, 2 images of 64x64": ({**CHURCH, "sample_size": (64, 64)}, 2),
    "half of church, 1 image of 256x256": ({**CHURCH, "block_out_channels": (64, 64, 128, 128, 256, 256)}, 1),
}

# Prints the memory that an evaluation of a batch takes at its peak, in bytes, beyond the weights.
MEASURE = """
import ctypes, json, sys
from pathlib import Path
import torch
from ddpm_inference.job import UNet2DSpec
from ddpm_inference.models.families import family_of

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
fields, batch = json.loads(sys.argv[1])
spec = UNet2DSpec.model_validate(fields)
family = family_of(spec)
network = family.build(spec)
predict = family.predictor(network, spec, [3], precision="fp32", execution="folded", device="cpu")
del network
x = torch.randn(batch, *spec.image_shape)
# What was freed must not serve the evaluation.
ctypes.CDLL(None).malloc_trim(0)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
predict(x, 3)
print(status("VmHWM") - before)
"""


def cost_of(fields: dict[str, Any]) -> Cost:
    spec = UNet2DSpec.model_validate(fields)
    return family_of(spec).cost(spec)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [COURSE, {**CHURCH, "sample_size": (64, 64)}], ids=["course", "church"])
def test_flops_are_those_that_torch_counts(fields: dict[str, Any]) -> None:
    spec = UNet2DSpec.model_validate(fields)
    with torch.device("meta"):
        network = family_of(spec).build(spec)
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *spec.image_shape), torch.zeros(1, dtype=torch.int64))
    assert cost_of(fields).flops == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("fields", "batch"), MEASURED.values(), ids=MEASURED)
def test_activation_bytes_are_the_measured_peak(fields: dict[str, Any], batch: int) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([fields, batch])], capture_output=True, text=True, check=True
    )
    # The first evaluation also loads libraries and lays out weights, some 50 MB at most.
    measured = int(result.stdout.split()[-1])
    assert 0.6 * batch * cost_of(fields).activation_bytes < measured
    assert measured < 1.4 * batch * cost_of(fields).activation_bytes + (64 << 20)


def test_a_large_network_fits_a_gpu_and_keeps_it_busy() -> None:
    cost = cost_of(CHURCH)
    batch = default_batch_size(cost, "cuda")
    weights = 4 * sum(
        torch.Size(shape).numel() for shape in family_of(UNet2DSpec(**CHURCH)).shapes(UNet2DSpec(**CHURCH)).values()
    )
    # Of 16 GiB, where 2 are the driver's and the libraries'.
    assert weights + 2 * batch * cost.activation_bytes < 14 << 30
    # A call of a TFLOP takes tens of milliseconds even on the largest GPU, thousands of times a kernel's launch.
    assert batch * cost.flops > 10**12


@pytest.mark.parametrize(("fields", "cpu", "cuda"), [(COURSE, 32, 512), (CHURCH, 1, 8)], ids=["course", "church"])
def test_the_default_batch_follows_from_the_cost(fields: dict[str, Any], cpu: int, cuda: int) -> None:
    assert default_batch_size(cost_of(fields), "cpu") == cpu
    assert default_batch_size(cost_of(fields), "cuda") == cuda
