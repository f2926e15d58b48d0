"""The network, and its execution."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ddpm_inference.job import Precision
from ddpm_inference.models.families import Predictor

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class SmallNetwork(nn.Module):
    """Three convolutions over the image and one channel that holds t/1000."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.small_in = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.small_middle = nn.Conv2d(width, width, 3, padding=1)
        self.small_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, t: float) -> Tensor:
        time = torch.full_like(x[:, :1], t / 1000)
        h = torch.relu(self.small_in(torch.cat([x, time], dim=1)))
        result: Tensor = self.small_out(torch.relu(self.small_middle(h)))
        return result


def predictor(network: nn.Module, precision: Precision, device: torch.device | str) -> Predictor:
    """Returns (x, t, labels) -> the predicted noise."""
    module = copy.deepcopy(network).eval().to(device, DTYPES[precision])

    @torch.inference_mode()
    def predict(x: Tensor, t: float, labels: Tensor | None = None) -> Tensor:
        result: Tensor = module(x.to(DTYPES[precision]), t).float()
        return result

    return predict
