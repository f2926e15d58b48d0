"""diffusers' ``UNet2DModel`` as a module of torch, and its execution for sampling. Imported only where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable
from ddpm_inference.job import Execution, Precision
from ddpm_inference.models.families import Predictor
from ddpm_inference.models.threads import one_thread
from ddpm_inference.models.unet2d_fast import FastUNet2D
from ddpm_inference.network_spec import UNet2DSpec

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build(spec: UNet2DSpec) -> nn.Module:
    """Builds the network with random weights, in training mode, on torch's default device.

    Call it as ``network(x, t, labels)``: x float32 (B, C, H, W), t a number or (B,), labels int64 (B,) or None; the
    result has the attribute ``sample``.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ResourcesUnavailable(
            f"a worker cannot build a UNet2DModel: {error}", hint="install diffusers on every node"
        ) from error
    fields = spec.model_dump(exclude={"name"})
    network: nn.Module = UNet2DModel(**fields)
    return network


def predictor(
    network: nn.Module,
    spec: UNet2DSpec,
    timesteps: Sequence[float],
    *,
    precision: Precision,
    execution: Execution,
    device: torch.device | str,
) -> Predictor:
    """Prepares a network for sampling, see `FastUNet2D`. In fp32 the result agrees with diffusers' class to 1e-5.

    Its tables are computed by one CPU thread, since their bits depend on the number of threads.

    Args:
        network: from `build(spec)`, with its weights loaded; not modified.
        timesteps: those that the sampler will visit; each costs a row of a table, 20 KB for widths of 64 to 256.
    """
    dtype = _DTYPES[precision]
    with one_thread():
        module = FastUNet2D(network, spec, timesteps).requires_grad_(False).to(device, dtype)
    index = {t: number for number, t in enumerate(timesteps)}
    rows = [] if module.labelled else module.rows()
    step: Callable[..., Tensor] = module
    if execution == "compiled":
        # torch's compiler takes almost as long to import as the rest of torch, so only workers that compile import it.
        from ddpm_inference.models.compiled import compiled

        step = compiled(module)

    @torch.inference_mode()
    def predict(x: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
        if module.labelled:
            if labels is None:
                raise InvalidSpec(f"the network has {spec.num_classes} classes, and needs a label for each sample")
            row = module.labelled_row(index[t], labels)
        else:
            row = rows[index[t]]
        prediction = step(x.to(dtype=dtype, memory_format=torch.channels_last), row)
        return prediction.to(dtype=torch.float32, memory_format=torch.contiguous_format)

    return predict
