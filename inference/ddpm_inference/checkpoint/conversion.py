"""Converts checkpoints: to safetensors with metadata, or to the folder of a diffusers pipeline."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy
from pydantic import JsonValue

from ddpm_inference.checkpoint.file import SCHEDULE_NOTE, Checkpoint, load_from, write_file
from ddpm_inference.checkpoint.safetensors_file import Metadata, encode
from ddpm_inference.errors import InvalidSpec, ModelRejected, StorageFailed
from ddpm_inference.job import ModelRequest, TrainedDiffusion, TrainedSchedule
from ddpm_inference.network_spec import UNet2DSpec

DIFFUSERS_VERSION = "0.42.1"
"""The release whose defaults a written configuration has for keys that are not in it."""
_SCHEDULES = {"sigmoid_betas": "sigmoid"}
_VARIANTS = {"small": "fixed_small", "large": "fixed_large", "learned_range": "learned_range"}


def convert(
    source: str | Path,
    target: Path,
    request: ModelRequest,
    trained: TrainedSchedule | None = None,
    *,
    overwrite: bool = False,
) -> Checkpoint:
    """Rewrites a checkpoint as safetensors with metadata if `target` ends in ``.safetensors``, else as the folder of a
    pipeline.

    Args:
        source: a URI or path, as `load_from` takes it.
        request: the architecture, where `source` does not contain it.
        trained: the noise schedule, where `source` does not contain it.

    Returns:
        the written checkpoint; its sha256 is that of the new file or folder.

    Raises:
        InvalidSpec: if `target` exists and may not be overwritten, or a contradiction as in `load_from`.
        ModelNotFound, ModelRejected: as in `load_from`; nothing is written.
        StorageFailed: if it cannot be written.
    """
    if target.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        raise InvalidSpec(f"{target} would be a pickle", hint="name a .safetensors file, or a folder for a pipeline")
    if target.exists() and not overwrite:
        raise InvalidSpec(f"{target} already exists", hint="choose another name, or pass --overwrite")
    checkpoint = load_from(request.model_copy(update={"uri": str(source)}))
    recorded = checkpoint.trained
    if recorded and trained and (recorded.name, recorded.timesteps) != (trained.name, trained.timesteps):
        raise InvalidSpec(
            f"{source} was trained with the schedule {recorded.name} of {recorded.timesteps} timesteps, "
            f"not {trained.name} of {trained.timesteps}"
        )
    if checkpoint.diffusion is not None and trained is not None:
        raise InvalidSpec(
            f"{source} is a pipeline, whose files say how it was trained",
            hint="omit --schedule, --timesteps and --variance",
        )
    trained = recorded or trained
    if target.suffix != ".safetensors":
        return _write_pipeline(checkpoint, target, str(source))
    data = encode(checkpoint.weights, Metadata(model=checkpoint.spec, trained=trained, diffusion=checkpoint.diffusion))
    write_file(target, data)
    notes = tuple(note for note in checkpoint.notes if trained is None or note != SCHEDULE_NOTE)
    return replace(checkpoint, trained=trained, sha256=hashlib.sha256(data).hexdigest(), notes=notes, source=None)


def _write_pipeline(checkpoint: Checkpoint, target: Path, source: str) -> Checkpoint:
    """Writes the nested layout of ``save_pretrained``, reads it again, and only then gives it its name."""
    spec, diffusion = checkpoint.spec, checkpoint.diffusion
    if not isinstance(spec, UNet2DSpec):
        raise ModelRejected(
            f"{source}: diffusers has no class for a {spec.name}, so a pipeline's folder cannot hold it",
            hint="name a .safetensors file: it holds every network",
        )
    diffusion = diffusion or TrainedDiffusion()
    if target.exists() and not target.is_dir():
        raise InvalidSpec(f"{target} is a file, and a pipeline is a folder", hint="choose another name")
    if target.exists() and any(target.iterdir()) and not (target / "model_index.json").is_file():
        raise InvalidSpec(
            f"{target} holds something else than a pipeline", hint="choose another name: it would be removed"
        )
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    scheduler = scheduler_config(diffusion)
    documents: dict[str, Mapping[str, JsonValue]] = {
        "model_index.json": {
            "_class_name": diffusion.pipeline or "DDPMPipeline",
            "_diffusers_version": DIFFUSERS_VERSION,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", spec.name],
        },
        "scheduler/scheduler_config.json": scheduler,
        "unet/config.json": unet_config(spec),
    }
    try:
        try:
            for name, document in documents.items():
                path = partial / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
            arrays = {key: np.asarray(value, order="C") for key, value in checkpoint.weights.items()}
            weights = safetensors.numpy.save(arrays, {"format": "pt"})
            (partial / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(weights)
            written = load_from(ModelRequest(uri=str(partial)))
            _require_same(checkpoint, diffusion, written, source)
            if target.exists():
                shutil.rmtree(target)
            partial.replace(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StorageFailed(
            f"{target} could not be written: {error.strerror}",
            hint="choose an existing folder that is writable and has space left",
        ) from error
    return replace(written, notes=checkpoint.notes)


def _require_same(checkpoint: Checkpoint, diffusion: TrainedDiffusion, written: Checkpoint, source: str) -> None:
    """Raises ModelRejected if a written pipeline would not be drawn as its source is."""
    ignored = {"notes", "pipeline", "scheduler"}
    wanted, read = diffusion.model_dump(exclude=ignored), (written.diffusion or diffusion).model_dump(exclude=ignored)
    fields = sorted({key for key in wanted.keys() | read.keys() if wanted.get(key) != read.get(key)})
    if written.spec != checkpoint.spec:
        fields.append("the network")
    if fields:
        raise ModelRejected(
            f"{source}: the files of a pipeline cannot hold all of it: {', '.join(fields)}",
            hint="name a .safetensors file, which can",
        )


def unet_config(spec: UNet2DSpec) -> dict[str, JsonValue]:
    """Returns the config.json of a UNet2DModel."""
    config: dict[str, JsonValue] = {key: getattr(spec, key) for key in type(spec).model_fields if key != "name"}
    config |= {key: list(value) for key, value in config.items() if isinstance(value, tuple)}
    height, width = spec.sample_size
    config["sample_size"] = height if height == width else [height, width]
    return {"_class_name": spec.name, "_diffusers_version": DIFFUSERS_VERSION, **config}


def scheduler_config(diffusion: TrainedDiffusion) -> dict[str, JsonValue]:
    """Returns the scheduler_config.json that `read_scheduler` reads as this diffusion."""
    config: dict[str, JsonValue] = {
        "_class_name": diffusion.scheduler or "DDPMScheduler",
        "_diffusers_version": DIFFUSERS_VERSION,
        "num_train_timesteps": diffusion.timesteps,
        "prediction_type": diffusion.prediction,
        "rescale_betas_zero_snr": diffusion.zero_snr,
    }
    if diffusion.trained_betas is not None:
        config["trained_betas"] = list(diffusion.trained_betas)
    else:
        config["beta_schedule"] = _SCHEDULES.get(diffusion.schedule, diffusion.schedule)
    for key in ("beta_start", "beta_end"):
        if getattr(diffusion, key) is not None:
            config[key] = getattr(diffusion, key)
    if diffusion.variance is not None:
        config["variance_type"] = _VARIANTS[diffusion.variance]
    config |= {key: value for key, value in diffusion.settings.model_dump().items() if value is not None}
    solver = diffusion.solver
    if solver is not None:
        config |= {"solver_order": solver.order, "solver_type": solver.type, "final_sigmas_type": solver.final_sigma}
        config |= {"lower_order_final": solver.lower_order_final}
        if diffusion.scheduler == "UniPCMultistepScheduler":
            config["disable_corrector"] = list(solver.disable_corrector)
        else:
            config["euler_at_final"] = solver.euler_at_final
            if solver.lambda_min_clipped is not None:
                config["lambda_min_clipped"] = solver.lambda_min_clipped
    return config
