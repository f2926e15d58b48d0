"""The Job document: what an attempt hands to inference, as JSON in an environment variable."""

from __future__ import annotations

from ddpm_operator.api.model import JsonValue
from ddpm_operator.api.uri import claim_path
from ddpm_operator.manifests.render import MODEL_PATH, OUTPUT_PATH, Attempt

JOB_VERSION = 1
_LONGEST_STARTUP = 86_400


def job_document(attempt: Attempt) -> dict[str, JsonValue]:
    """The Job of an attempt: what is asked for, what the plan has chosen, and claims as the pods mount them."""
    spec, plan = attempt.spec, attempt.plan
    model, sampler = spec.model, spec.sampler
    resources: dict[str, JsonValue] = {
        "num_cpus_per_task": 1,
        "startup_timeout": min(spec.startup_deadline_seconds, _LONGEST_STARTUP),
    }
    if plan.tasks_per_gpu:
        resources["num_gpus_per_task"] = gpu_share(plan.tasks_per_gpu)
    return {
        "version": JOB_VERSION,
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


def gpu_share(tasks: int) -> float:
    """The share of a GPU that so many tasks can each have.

    Ray counts in steps of 0.0001 and rounds to the nearest, so that six times 1/6 would be more than one GPU.
    """
    return 10_000 // tasks / 10_000


def _mounted(uri: str, mount: str) -> str:
    """The URI as the pod sees it: a path below the claim's mount, or what it was."""
    place = claim_path(uri)
    return f"{mount}/{place.path}" if place else uri
