"""The sinusoidal time embedding and the MLP after it, shared by both networks."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn

from ddpm_inference.job import TimeEmbedding

MAX_PERIOD = 10_000.0


class SinusoidalEmbedding(nn.Module):
    """Position -> vector: ``pe[i] = sin(p * 10000^(-i/dim))`` for even i, ``cos`` of the same for odd i.

    Vaswani et al. 2017, section 3.5, with a separate frequency for every column, as in the original. Position
    p is the timestep (``step``), or always 0 (``row``): the original encoded the row in the batch, and sampled at
    batch size 1.
    """

    def __init__(self, dim: int, kind: TimeEmbedding) -> None:
        super().__init__()
        self.dim = dim
        self.kind = kind

    def forward(self, t: Tensor) -> Tensor:
        """Embeds t, int64 (B,), as float32 (B, dim)."""
        match self.kind:
            case "step":
                position = t.double()
            case "row":
                position = torch.zeros_like(t, dtype=torch.float64)
            case _:
                assert_never(self.kind)
        column = torch.arange(self.dim, device=t.device)
        # float64, because in float32 the phase of a late timestep would lose four digits.
        phase = position[:, None] * MAX_PERIOD ** (-column.double() / self.dim)
        return torch.where(column % 2 == 0, phase.sin(), phase.cos()).float()


def time_mlp(dim: int, kind: TimeEmbedding, activation: nn.Module) -> nn.Sequential:
    """Builds t int64 (B,) -> float32 (B, 4 * dim), with the original's key names ``pos_emb.1`` and ``pos_emb.3``."""
    return nn.Sequential(
        SinusoidalEmbedding(dim, kind), nn.Linear(dim, 4 * dim), activation, nn.Linear(4 * dim, 4 * dim)
    )
