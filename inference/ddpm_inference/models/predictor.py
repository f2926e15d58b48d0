"""Fast execution of the guide's networks for sampling: the eps model that a sampler calls at every step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import assert_never, cast

import torch
from torch import Tensor, nn

from ddpm_inference.job import Execution, Precision
from ddpm_inference.models.families import Predictor
from ddpm_inference.models.folded import FoldedUnet
from ddpm_inference.models.threads import one_thread
from ddpm_inference.models.unet import Unet
from ddpm_inference.network_spec import ModelSpec

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def predictor(
    network: nn.Module,
    spec: ModelSpec,
    timesteps: Sequence[float],
    *,
    precision: Precision = "fp32",
    execution: Execution = "folded",
    device: torch.device | str = "cpu",
) -> Predictor:
    """Prepares a network for sampling. In fp32 the result agrees with the eager network in evaluation mode to 1e-5.

    A Unet is folded, see `FoldedUnet`, by one CPU thread, since the bits of its tables depend on the number of threads.
    A SimpleUnet is not: it does not depend on time, and its norms depend on each pixel, so nothing in it is constant.

    Args:
        network: from `build(spec)`, with its weights loaded; not modified.
        spec: the architecture.
        timesteps: those that the sampler will visit; each costs a row of a table, 2 KB for downs 8 16 32.
        precision: number format of weights and activations.
        execution: ``compiled`` passes the same operations to torch.compile; the first call then takes many seconds.
        device: of the network; x must be on it.

    Returns:
        (x (B, C, H, W) float32, t, labels) -> eps, float32 of the same shape; there are no labels. Raises KeyError for
        a t that is not among `timesteps`, and InvalidSpec at the first call if this machine cannot compile.
    """
    dtype = _DTYPES[precision]
    module: nn.Module
    time: dict[float, object]  # timestep -> second argument of `module`
    match spec.name:
        case "Unet":
            with one_thread():
                module = folded = FoldedUnet(cast(Unet, network), timesteps).to(device, dtype)
            time = dict(zip(timesteps, folded.rows(), strict=True))
        case "SimpleUnet":
            module = copy.deepcopy(network).eval().to(device, dtype).to(memory_format=torch.channels_last)
            # Its output does not depend on t, so every timestep gets 0.
            time = dict.fromkeys(timesteps, torch.zeros(1, dtype=torch.int64, device=device))
        case _:
            assert_never(spec.name)
    step: Callable[..., Tensor] = module
    if execution == "compiled":
        # torch's compiler takes almost as long to import as the rest of torch, so only workers that compile import it.
        from ddpm_inference.models.compiled import compiled

        step = compiled(module)

    @torch.inference_mode()
    def eps_model(x: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
        eps = step(x.to(dtype=dtype, memory_format=torch.channels_last), time[t])
        return eps.to(dtype=torch.float32, memory_format=torch.contiguous_format)

    return eps_model
