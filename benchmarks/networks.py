"""The networks used by the benchmarks."""

from __future__ import annotations

from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.job import ModelRequest, ModelSpec

GUIDE = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")


def shipped() -> ModelSpec:
    """Returns the architecture of builtin://mnist, from its metadata."""
    uri = "builtin://mnist"
    return load(fetch(uri), ModelRequest(uri=uri)).spec
