"""Builds the job document: the input of the driver, passed as JSON in an environment variable of the Ray job.

`ddpm_inference.job` parses it; a test compares both.
"""

from __future__ import annotations

from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.spec import Sampler
from ddpm_operator.api.uri import claim_path
from ddpm_operator.manifests.render import MODEL_PATH, OUTPUT_PATH, Attempt

# The version of the document's schema: what ddpm_inference.job.JOB_DOCUMENT_VERSION accepts. It is not
# Identity.version, which is part of the fingerprint of the samples.
JOB_DOCUMENT_VERSION = 1
_MAX_STARTUP_SECONDS = 86_400


def job_document(attempt: Attempt) -> dict[str, JsonValue]:
    """Returns the job document of an attempt, from its spec and plan, with claims as mounted paths."""
    spec, plan = attempt.spec, attempt.plan
    model, sampler = spec.model, spec.sampler
    resources: dict[str, JsonValue] = {
        "num_cpus_per_task": 1,
        "startup_timeout": min(spec.startup_deadline_seconds, _MAX_STARTUP_SECONDS),
    }
    if plan.tasks_per_gpu:
        resources["num_gpus_per_task"] = gpu_share(plan.tasks_per_gpu)
    return {
        "version": JOB_DOCUMENT_VERSION,
        "model": {
            "uri": _mounted(model.uri, MODEL_PATH),
            "sha256": model.sha256,
            "name": model.name,
            "downs": list(model.downs) if model.downs else None,
            "time_emb_dim": model.time_emb_dim,
            "img_size": model.img_size,
            "channels": model.channels,
            "time_embedding": model.time_embedding,
        },
        "n_samples": spec.samples,
        "seed": spec.seed,
        "sampler": {
            "name": sampler.name,
            "timesteps": sampler.timesteps,
            "steps": sampler.steps,
            "eta": float(sampler.eta),
            "schedule": sampler.schedule,
            "variance": sampler.variance,
            **_scheduler_settings(sampler),
        },
        "precision": spec.precision,
        "batch_size": plan.batch_size,
        "device": plan.device,
        "output": {
            "uri": _mounted(spec.output.uri, OUTPUT_PATH) if spec.output.uri else OUTPUT_PATH,
            "formats": list(spec.output.formats),
        },
        "resources": resources,
    }


_SETTINGS = ("rescale_betas_zero_snr", "prediction_type", "clip_sample", "thresholding", "timestep_spacing",
             "steps_offset", "set_alpha_to_one")  # fmt: skip
_DECIMAL_SETTINGS = ("beta_start", "beta_end", "clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value")


def _scheduler_settings(sampler: Sampler) -> dict[str, JsonValue]:
    """Returns the settings of a diffusers scheduler that the spec has; absent ones are the checkpoint's."""
    settings: dict[str, JsonValue] = {name: getattr(sampler, name) for name in _SETTINGS}
    for name in _DECIMAL_SETTINGS:
        value = getattr(sampler, name)
        settings[name] = None if value is None else float(value)
    return {name: value for name, value in settings.items() if value is not None}


def gpu_share(tasks: int) -> float:
    """Returns the fraction of a GPU for each of `tasks` tasks that share it, rounded down to 0.0001.

    Ray rounds fractions to the nearest 0.0001, so six tasks with 1/6 each would need more than one GPU.
    """
    return 10_000 // tasks / 10_000


def _mounted(uri: str, mount: str) -> str:
    """Returns the path below `mount` for a ``pvc://`` URI; any other URI unchanged."""
    found = claim_path(uri)
    return f"{mount}/{found.path}" if found else uri
