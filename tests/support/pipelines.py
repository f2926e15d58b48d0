"""Folders of small diffusers pipelines, written without diffusers, and variations of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ddpm_inference.models.families import family_of
from ddpm_inference.network_spec import UNet2DSpec

CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.20.0",
    "act_fn": "silu",
    "add_attention": True,
    "attention_head_dim": 4,
    "block_out_channels": [8, 16],
    "center_input_sample": False,
    "class_embed_type": None,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "downsample_padding": 1,
    "downsample_type": "conv",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 1,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 4,
    "num_class_embeds": None,
    "out_channels": 1,
    "resnet_time_scale_shift": "default",
    "sample_size": 8,
    "time_embedding_type": "positional",
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "upsample_type": "conv",
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.20.0",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 20,
    "prediction_type": "epsilon",
    "variance_type": "fixed_small",
}
INDEX: dict[str, Any] = {
    "_class_name": "DDPMPipeline",
    "_diffusers_version": "0.20.0",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "unet": ["diffusers", "UNet2DModel"],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def arrays(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Returns random weights of `CONFIG`'s network."""
    fields = {key: value for key, value in CONFIG.items() if not key.startswith("_")}
    spec = UNet2DSpec(**{**fields, "sample_size": (8, 8)})
    random = np.random.default_rng(seed)
    shapes = family_of(spec).shapes(spec)
    return {key: random.normal(size=shape, scale=0.1).astype(np.float32) for key, shape in shapes.items()}


def weights(seed: int = 0, *, half: bool = False) -> bytes:
    """Returns a safetensors file as diffusers writes it."""
    values = {key: value.astype(np.float16) if half else value for key, value in arrays(seed).items()}
    return safetensors.numpy.save(values, {"format": "pt"})


def nested(seed: int = 0) -> dict[str, bytes]:
    """Returns path -> content of a pipeline as ``save_pretrained`` writes it."""
    return {
        "model_index.json": encoded(INDEX),
        "scheduler/scheduler_config.json": encoded(SCHEDULER),
        "unet/config.json": encoded(CONFIG),
        f"unet/{WEIGHTS}": weights(seed),
    }


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files below a folder, and returns it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
