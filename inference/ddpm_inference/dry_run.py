"""``--dry_run``: describes what a run would do, without starting it and without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddpm_inference.checkpoint import Checkpoint, load_from
from ddpm_inference.checkpoint.source import redacted
from ddpm_inference.job import Device, Identity, Job, SamplerSpec, shard_count
from ddpm_inference.models.families import family_of
from ddpm_inference.network_spec import ModelSpec, NetworkSpec
from ddpm_inference.plan import (
    device_without_cluster,
    notes_for,
    pinned_revision,
    require_possible,
    require_same_job,
    resolve_identity,
)
from ddpm_inference.ray_backend.node_packages import torch_version
from ddpm_inference.store import Store, select
from ddpm_inference.text import count

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def dry_run(job: Job, ray_address: str) -> dict[str, str]:
    """Returns label -> description, in the order in which to show them.

    Raises:
        DdpmError: everything that a run would reject before it connects to Ray.
    """
    store = Store.open(job.output.uri)
    stored = _stored_identity(store, job) if job.model.uri.startswith("hf://") else None
    revision = pinned_revision(job, stored)
    checkpoint = load_from(job.model, revision=revision)
    store.require_folder()
    stored = None if job.output.overwrite else store.read_identity()
    require_possible(job, checkpoint, stored)
    device = device_without_cluster(job, stored)
    torch = stored.torch if stored else torch_version() or ""
    # Without a cluster the device may be unknown; then there is one identity for each device.
    devices = [device] if device else DEVICES
    identities = [resolve_identity(job, checkpoint, stored, device=each, torch=torch) for each in devices]
    if stored is not None:
        require_same_job(identities[0], stored, store.uri)
    first = identities[0]
    return {
        "model": f"{_printable_uri(job, checkpoint)}, sha256 {checkpoint.sha256[:12]}…",
        "network": _network(checkpoint.spec),
        "sampler": _sampler(first.sampler),
        "samples": f"{job.n_samples}, seed {job.seed}, {job.precision}, {first.execution}",
        "shards": _per_device(identities, lambda identity: _shards(job.n_samples, identity.batch_size)),
        "output": store.uri,
        "there": _stored(store, stored, job.n_samples, overwrite=job.output.overwrite),
        "device": device or "auto: cuda where the Ray cluster has GPUs, else cpu",
        "workers": _per_device(identities, lambda identity: _workers(job, identity)),
        "ray": ray_address,
        "notes": "; ".join(notes_for(job, checkpoint)) or "none",
    }


def _printable_uri(job: Job, checkpoint: Checkpoint) -> str:
    uri = redacted(job.model.uri) if job.model.uri.startswith("https://") else job.model.uri
    commit = checkpoint.source.revision if checkpoint.source else None
    return uri if commit is None or commit in uri else f"{uri}, commit {commit}"


def _stored_identity(store: Store, job: Job) -> Identity | None:
    store.require_folder()
    return None if job.output.overwrite else store.read_identity()


def _network(spec: NetworkSpec) -> str:
    shape = " x ".join(map(str, spec.image_shape))
    if not isinstance(spec, ModelSpec):
        classes = f", {spec.num_classes} classes" if spec.num_classes else ""
        return f"{family_of(spec).describe(spec)}, images {shape}{classes}"
    downs = " ".join(map(str, spec.downs))
    return (
        f"{spec.name}, downs {downs}, time_emb_dim {spec.time_emb_dim}, time embedding {spec.time_embedding}, "
        f"images {shape}"
    )


def _sampler(spec: SamplerSpec) -> str:
    extra = {"ddpm": f", variance {spec.variance}", "ddim": f", eta {spec.eta:g}"}.get(spec.name, "")
    if spec.diffusion is not None:
        clip = "no clamp" if spec.diffusion.clip_range is None else f"x_0 within ±{spec.diffusion.clip_range:g}"
        limit = "dynamic thresholding" if spec.diffusion.thresholding else clip
        extra += f", predicts {spec.diffusion.prediction}, spacing {spec.diffusion.spacing}, {limit}"
    timesteps = f"{spec.timesteps} timestep{'' if spec.timesteps == 1 else 's'}"
    return f"{spec.name}, {spec.steps} of {timesteps}, schedule {spec.schedule}{extra}"


def _shards(n_samples: int, batch_size: int) -> str:
    return f"{count(shard_count(n_samples, batch_size), 'shard')} of at most {count(batch_size, 'sample')}"


def _workers(job: Job, identity: Identity) -> str:
    resources = job.resources
    each = f"{resources.num_cpus_per_task:g} CPU"
    if identity.device == "cuda":
        each = f"{resources.num_gpus_per_task:g} GPU and {each}"
    limit = min(resources.workers or job.n_samples, shard_count(job.n_samples, identity.batch_size))
    return f"at most {limit}, each with {each}"


def _per_device(identities: Sequence[Identity], describe: Callable[[Identity], str]) -> str:
    if len(identities) == 1:
        return describe(identities[0])
    return "; ".join(f"on {identity.device}: {describe(identity)}" for identity in identities)


def _stored(store: Store, stored: Identity | None, n_samples: int, *, overwrite: bool) -> str:
    if overwrite:
        store.require_writable()
        return "an existing run will be removed"
    if stored is None:
        store.require_writable()
        return "nothing yet"
    manifest = store.complete_manifest(stored, n_samples)
    if manifest is not None:
        damaged = len(store.inspect(manifest, hash_all=False).damaged)
        if damaged:
            are = "is" if damaged == 1 else "are"
            return f"{count(manifest.n_samples, 'sample')}, {count(damaged, 'file')} {are} missing or damaged"
        return f"all: {count(manifest.n_samples, 'sample')}"
    store.require_writable()
    usable, missing = select(store.scan(stored).records, n_samples, stored.batch_size)
    are = "is" if len(missing) == 1 else "are"
    return f"{count(sum(record.size for record in usable), 'sample')}, {count(len(missing), 'shard')} {are} missing"
