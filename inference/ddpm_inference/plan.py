"""Resolves a Job to the Identity of its samples, from the request, the checkpoint and what is stored already. Pure.

`driver` calls it for a run, `dry_run` for a description. Not the plan of the operator (`status.plan`), nor
`progress.Plan`, which publishes a part of the result.
"""

from __future__ import annotations

from typing import get_args

from ddpm_inference.checkpoint import SCHEDULE_NOTE, Checkpoint
from ddpm_inference.errors import InvalidSpec, OutputConflict
from ddpm_inference.job import (
    DEFAULT_TIMESTEPS,
    IDENTITY_VERSION,
    SAMPLER_OF_FIELD,
    Device,
    Execution,
    Hardware,
    Identity,
    Job,
    ResourceRequest,
    default_batch_size,
    resolve_sampler,
    shard_count,
)
from ddpm_inference.models.families import family_of
from ddpm_inference.network_spec import NetworkSpec
from ddpm_inference.sampling.grid import timesteps_of

MAX_SHARDS = 1_000_000
"""More than this, and the driver's memory (1.3 kB a shard), the manifest and the listing of a bucket are too large."""


def device_without_cluster(job: Job, stored: Identity | None) -> Device | None:
    """Returns the device if the job or the stored identity decides it; None if it depends on the cluster's GPUs."""
    if job.device != "auto":
        return job.device
    return stored.device if stored else None


def resources_for(job: Job, stored: Identity | None) -> ResourceRequest:
    """Returns the requested resources; if they leave the CPUs open, those for the threads of the stored identity."""
    resources = job.resources
    if stored is None or stored.threads == 1 or "num_cpus_per_task" in resources.model_fields_set:
        return resources
    return resources.model_copy(update={"num_cpus_per_task": stored.threads})


def unknown_fields_note(stored: Identity) -> str | None:
    """Returns a sentence if the stored identity is of a version that lacks fields; None if it lacks none."""
    if stored.version >= IDENTITY_VERSION:
        return None
    return (
        f"the stored run has an identity of version {stored.version}, which does not record CPU threads and hardware; "
        "it is continued without comparing them"
    )


def notes_for(job: Job, checkpoint: Checkpoint) -> list[str]:
    """Returns what the user should know of the job, one sentence each: assumptions, and fields without effect."""
    sampler = job.sampler
    notes = [note for note in checkpoint.notes if note != SCHEDULE_NOTE]
    notes += checkpoint.diffusion.notes if checkpoint.diffusion else ()
    if checkpoint.trained is None and checkpoint.diffusion is None:
        assumed = [
            f"{field} {default} (--{field} if it was trained with another)"
            for field, default in (("schedule", "linear"), ("timesteps", DEFAULT_TIMESTEPS))
            if getattr(sampler, field) is None
        ]
        if len(assumed) == 2:
            notes.append(SCHEDULE_NOTE)
        elif assumed:
            notes.append(f"noise schedule: not in the checkpoint, so {assumed[0]}")
    chosen = sampler.name or (checkpoint.diffusion.sampler if checkpoint.diffusion else "ddpm")
    for field, name in SAMPLER_OF_FIELD.items():
        value = getattr(sampler, field)
        if value and chosen != name:
            notes.append(f"sampler.{field} {value} has no effect with the sampler {chosen}: it is of {name}")
    return notes


def batch_size_for(spec: NetworkSpec, device: Device) -> int:
    """Returns the batch size of a network for a job that gives none."""
    return default_batch_size(family_of(spec).cost(spec), device)


def pinned_revision(job: Job, stored: Identity | None) -> str | None:
    """Returns the commit of the stored run, if it was drawn from the same ``hf://`` URI.

    A branch moves. A run that is resumed, grown or retried draws from the commit that it began with.
    """
    source = stored.source if stored else None
    return source.revision if source and source.uri == job.model.uri else None


def pinned_note(job: Job, checkpoint: Checkpoint, revision: str | None) -> str | None:
    """Returns a sentence if a stored run's commit is used; None otherwise."""
    if revision is None or revision in job.model.uri or checkpoint.source is None:
        return None
    return f"{job.model.uri}: the stored run was drawn from the commit {revision}, and is continued with it"


def resolve_identity(
    job: Job,
    checkpoint: Checkpoint,
    stored: Identity | None,
    *,
    device: Device,
    torch: str,
    hardware: Hardware | None = None,
) -> Identity:
    """Chooses every value that decides the pixels.

    Batch size, execution mode and threads of an earlier run are kept unless the job sets them, so that a later version
    of this program, or another cluster, resumes the same job. A stored identity keeps its version, and what that
    version lacks stays unknown.

    Args:
        stored: the identity at the output URI; None if there is none or it is to be overwritten.
        device: see `device_without_cluster`.
        torch: the torch version that will sample.
        hardware: of the workers; if None, the stored one.

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
    chosen = stored.batch_size if stored else batch_size_for(checkpoint.spec, device)
    if stored and (hardware is None or stored.hardware is None or job.resources.allow_mixed_hardware):
        hardware = stored.hardware
    version = stored.version if stored else IDENTITY_VERSION
    threads = resources_for(job, stored).threads if device == "cpu" and version > 1 else 1
    sampler = resolve_sampler(
        job.sampler, checkpoint.trained, checkpoint.diffusion, learned_variance=checkpoint.spec.learned_variance
    )
    timesteps_of(sampler)  # raises InvalidSpec now, not in a worker
    return Identity(
        version=version,
        model_sha256=checkpoint.sha256,
        model=checkpoint.spec,
        sampler=sampler,
        seed=job.seed,
        precision=job.precision,
        batch_size=job.batch_size or chosen,
        execution=execution,
        device=device,
        torch=torch,
        threads=threads,
        hardware=hardware,
        source=stored.source if stored and stored.model_sha256 == checkpoint.sha256 else checkpoint.source,
    )


def require_same_job(identity: Identity, stored: Identity | None, output_uri: str) -> None:
    """Raises OutputConflict if another job is stored at the output URI, listing the fields that differ."""
    if stored is None or stored.fingerprint == identity.fingerprint:
        return
    differences = identity.differences(stored)
    hint = "give the same flags as before, choose another output URI, or give --overwrite to remove that run"
    fields = {difference.partition(":")[0].partition(".")[0] for difference in differences}
    if fields == {"torch"}:
        hint = f"use torch {stored.torch} to resume that run, choose another output URI, or give --overwrite"
    elif fields == {"threads"}:
        hint = (
            f"omit --num_cpus_per_task, or give {stored.threads}, to resume that run: another number of threads may "
            "draw other bits; or choose another output URI, or give --overwrite"
        )
    elif stored.source and stored.source.revision and identity.model_sha256 != stored.model_sha256:
        at = f"@{stored.source.revision}"
        hint = (
            f"that run was drawn from the commit {stored.source.revision}: give the hf:// URI with {at} to resume it, "
            "choose another output URI, or give --overwrite"
        )
    elif fields == {"hardware"}:
        hint = (
            "resume that run on its own kind of hardware, or give --allow_mixed_hardware: the bits will differ, and "
            "the manifest says which shards are which; or choose another output URI, or give --overwrite"
        )
    raise OutputConflict(f"{output_uri} holds the samples of another job: {'; '.join(differences)}", hint=hint)


def require_possible(job: Job, checkpoint: Checkpoint, stored: Identity | None) -> None:
    """Raises InvalidSpec if the job has more shards than a run can finish, whatever device it gets.

    Args:
        stored: the identity at the output URI; None if there is none or it is to be overwritten.
    """
    device = device_without_cluster(job, stored)
    sizes = [batch_size_for(checkpoint.spec, each) for each in ([device] if device else get_args(Device))]
    require_possible_shards(job.n_samples, job.batch_size or (stored.batch_size if stored else max(sizes)))


def require_possible_shards(n_samples: int, batch_size: int) -> None:
    """Raises InvalidSpec if N samples have more than `MAX_SHARDS` shards."""
    shards = shard_count(n_samples, batch_size)
    if shards > MAX_SHARDS:
        raise InvalidSpec(
            f"{n_samples:,} samples in batches of {batch_size} are {shards:,} shards, "
            f"and a run may have at most {MAX_SHARDS:,}",
            hint=f"give --batch_size {-(-n_samples // MAX_SHARDS)} or more, or fewer samples with another --seed each",
        )
