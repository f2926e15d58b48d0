"""Times networks of diffusers in its own loop, and in our step as one CUDA graph, eager and compiled.

diffusers_configs.json has the configurations: of the diffusers course, and of google/ddpm-cifar10-32 and
google/ddpm-celebahq-256.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from stepper import GraphStepper, diffusers_network
from torch import Tensor, nn

CONFIGS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("diffusers_configs.json").read_text())


@dataclass(frozen=True)
class Variant:
    """What is measured; `tiny` shrinks images and channels for a smoke run."""

    network: str
    precision: str
    batch: int
    compiled: bool
    tiny: bool = False

    def __str__(self) -> str:
        return f"{self.network} {self.precision} {self.batch}"


PLAN = (
    Variant("course", "bf16", 128, compiled=True),
    Variant("cifar10", "bf16", 128, compiled=True),
    Variant("google256", "bf16", 8, compiled=True),
    Variant("course", "tf32", 128, compiled=False),
    Variant("cifar10", "tf32", 128, compiled=False),
    Variant("cifar10", "fp32", 64, compiled=False),
    Variant("cifar10", "bf16", 16, compiled=False),
)
SMOKE_PLAN = (Variant("course", "fp32", 1, compiled=False, tiny=True),)


@torch.inference_mode()
def time_diffusers(
    variant: Variant, device: str, seconds_a_call: Callable[[Callable[[], object]], float], backend: str
) -> dict[str, object]:
    """Returns milliseconds a step. `backend` is that of torch.compile."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    config = CONFIGS[variant.network]
    if variant.tiny:
        config = {**config, "sample_size": 16, "block_out_channels": [32] * len(config["block_out_channels"])}
    size, batch = config["sample_size"], variant.batch
    dtype = torch.bfloat16 if variant.precision == "bf16" else torch.float32
    network = UNet2DModel(**config).eval().to(device, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, size, size, device=device, dtype=dtype)

    def graph_ms(module: nn.Module) -> float:
        graph = GraphStepper(diffusers_network(module, batch), (3, size, size), batch, dtype, device)
        return 1e3 * seconds_a_call(graph.step_or_rewind)

    row: dict[str, object] = {
        "diffusers_eager_ms": 1e3 * seconds_a_call(diffusers_loop(network, x)),
        "network_ms": 1e3 * seconds_a_call(lambda: network(x, 500, return_dict=False)),
        "graph_ms": graph_ms(network),
    }
    if variant.compiled:
        began = time.monotonic()
        compiled = torch.compile(network, fullgraph=True, dynamic=False, backend=backend)
        compiled(x, torch.full((batch,), 500, device=device), return_dict=False)
        row["compile_seconds"] = time.monotonic() - began
        row["compiled_graph_ms"] = graph_ms(compiled)
        # In diffusers' loop the timestep is a CPU scalar, so torch.compile makes another graph.
        reduced = torch.compile(network, mode="reduce-overhead", fullgraph=True)
        row["diffusers_compiled_ms"] = 1e3 * seconds_a_call(diffusers_loop(reduced, x))
        torch.compiler.reset()
    if device == "cuda":
        row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        row["out_of_memory_retries"] = torch.cuda.memory_stats().get("num_ooms")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return row


def diffusers_loop(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """Returns a function that performs the next step of DDPMScheduler, and starts again after the last."""
    scheduler = DDPMScheduler()
    scheduler.set_timesteps(1000)
    generator = torch.Generator(x.device).manual_seed(0)
    state, step = x.clone(), 0

    def next_step() -> None:
        nonlocal state, step
        t = scheduler.timesteps[step % 999]
        step += 1
        eps = network(state, t, return_dict=False)[0]
        state = scheduler.step(eps, t, state, generator=generator).prev_sample

    return next_step
