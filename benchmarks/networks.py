"""The networks that the benchmarks measure."""

from __future__ import annotations

from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.job import ModelRequest, ModelSpec

GUIDE = ModelSpec(name="Unet", downs=(8, 16, 32), time_emb_dim=4, img_size=28, time_embedding="step")


def shipped() -> ModelSpec:
    """The architecture of builtin://mnist, as its file says it."""
    uri = "builtin://mnist"
    return load(fetch(uri), ModelRequest(uri=uri)).spec
