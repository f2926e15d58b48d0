"""From what is asked for, what the checkpoint says and what is stored already, to what will be done. Pure."""

from __future__ import annotations

from ddpm_inference.checkpoint import Checkpoint
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import Device, Execution, Identity, Job, default_batch_size, resolve_sampler


def known_device(job: Job, there: Identity | None) -> Device | None:
    """The device, where it can be told without asking the cluster whether it has GPUs."""
    if job.device != "auto":
        return job.device
    return there.device if there else None


def resolve(job: Job, checkpoint: Checkpoint, there: Identity | None, *, device: Device, torch: str) -> Identity:
    """Chooses every value that decides the pixels.

    What was chosen when the output place was begun (batch size, execution) stays as it is unless the job says
    otherwise, so that later versions and other clusters go on with what is there.

    Args:
        there: the identity stored at the output place, None if there is none or it is to be overwritten.
        device: see `known_device`.
        torch: the version that will sample.

    Raises:
        InvalidSpec: if the job contradicts the checkpoint or itself.
    """
    gpus = job.resources.num_gpus_per_task
    if device == "cuda" and gpus > 1 and gpus != int(gpus):
        raise InvalidSpec(
            f"--num_gpus_per_task {gpus:g} is not possible: above one GPU, Ray gives whole ones",
            hint=f"give {int(gpus)}, or a fraction of 1",
        )
    execution: Execution = "compiled" if job.compile else "folded"
    if there and "compile" not in job.model_fields_set:
        execution = there.execution
    chosen = there.batch_size if there else default_batch_size(checkpoint.spec, device)
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


def refuse_another(identity: Identity, there: Identity | None, place: str) -> None:
    """Raises OutputConflict if the place holds another job, saying what tells the two apart."""
    if there is None or there.fingerprint == identity.fingerprint:
        return
    differences = identity.differences(there)
    hint = "give the same flags as then, choose another output place, or --overwrite to remove what that run left"
    if [difference.partition(":")[0] for difference in differences] == ["torch"]:
        hint = f"sample with torch {there.torch} to go on there, or choose another output place, or --overwrite"
    raise OutputConflict(f"{place} holds the samples of another job: {'; '.join(differences)}", hint=hint)
