"""Resolves a Job to the Identity of its samples, from the request, the checkpoint and what is stored already. Pure.

`driver` calls it for a run, `dry_run` for a description. Not the plan of the operator (`status.plan`), nor
`progress.Plan`, which publishes a part of the result.
"""

from __future__ import annotations

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Device, Execution, Identity, Job, default_batch_size, resolve_sampler


def device_without_cluster(job: Job, stored: Identity | None) -> Device | None:
    """Returns the device if the job or the stored identity decides it; None if it depends on the cluster's GPUs."""
    if job.device != "auto":
        return job.device
    return stored.device if stored else None


def resolve_identity(
    job: Job, checkpoint: Checkpoint, stored: Identity | None, *, device: Device, torch: str
) -> Identity:
    """Chooses every value that decides the pixels.

    The batch size and execution mode of an earlier run are kept unless the job sets them, so that a later version of
    this program, or another cluster, resumes the same job.

    Args:
        stored: the identity at the output URI; None if there is none or it is to be overwritten.
        device: see `device_without_cluster`.
        torch: the torch version that will sample.

    Raises:
        InvalidSpec: if the job contradicts the checkpoint or itself.
    """
    gpus = job.resources.num_gpus_per_task
    if device == "cuda" and gpus > 1 and gpus != int(gpus):
        raise InvalidSpec(
            f"--num_gpus_per_task {gpus:g} is not possible: above one GPU, Ray assigns whole GPUs only",
            hint=f"give {int(gpus)}, or a fraction of 1",
        )
    execution: Execution = "compiled" if job.compile else "folded"
    if stored and "compile" not in job.model_fields_set:
        execution = stored.execution
    chosen = stored.batch_size if stored else default_batch_size(checkpoint.spec, device)
    return Identity(
        model_sha256=checkpoint.sha256,
        model=checkpoint.spec,
        sampler=resolve_sampler(job.sampler, checkpoint.trained),
        seed=job.seed,
        precision=job.precision,
        batch_size=job.batch_size or chosen,
        execution=execution,
        device=device,
        torch=torch,
    )


def require_same_job(identity: Identity, stored: Identity | None, output_uri: str) -> None:
    """Raises OutputConflict if another job is stored at the output URI, listing the fields that differ."""
    if stored is None or stored.fingerprint == identity.fingerprint:
        return
    differences = identity.differences(stored)
    hint = "give the same flags as before, choose another output URI, or give --overwrite to remove that run"
    if [difference.partition(":")[0] for difference in differences] == ["torch"]:
        hint = f"use torch {stored.torch} to resume that run, choose another output URI, or give --overwrite"
    raise OutputConflict(f"{output_uri} holds the samples of another job: {'; '.join(differences)}", hint=hint)
