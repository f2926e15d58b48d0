"""``--dry_run``: what a run would do, told without starting it and without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddpm_inference.checkpoint import fetch, load
from ddpm_inference.job import Device, Identity, Job, ModelSpec, SamplerSpec, shard_count
from ddpm_inference.plan import known_device, refuse_another, resolve
from ddpm_inference.ray_backend.node_packages import torch_version
from ddpm_inference.store import Store, select

DEVICES: tuple[Device, ...] = ("cpu", "cuda")


def dry_run(job: Job, ray_address: str) -> dict[str, str]:
    """Label -> what will be done, in the order in which to show it.

    Raises:
        DdpmError: all that the run would refuse before it asks Ray.
    """
    checkpoint = load(fetch(job.model.uri), job.model)
    store = Store.open(job.output.uri)
    there = None if job.output.overwrite else store.read_identity()
    known = known_device(job, there)
    torch = there.torch if there else torch_version() or ""
    # Without a device that is known, there is one plan for each.
    plans = [resolve(job, checkpoint, there, device=each, torch=torch) for each in ([known] if known else DEVICES)]
    if there is not None:
        refuse_another(plans[0], there, store.uri)
    return {
        "model": f"{job.model.uri}, sha256 {checkpoint.sha256[:12]}…",
        "network": _network(checkpoint.spec),
        "sampler": _sampler(plans[0].sampler),
        "samples": f"{job.n_samples}, seed {job.seed}, {job.precision}, {plans[0].execution}",
        "shards": _each(plans, lambda plan: _shards(job.n_samples, plan.batch_size)),
        "output": store.uri,
        "there": _stored(store, there, job.n_samples, overwrite=job.output.overwrite),
        "device": known or "auto: cuda where the Ray cluster has GPUs, else cpu",
        "workers": _each(plans, lambda plan: _workers(job, plan)),
        "ray": ray_address,
        "notes": "; ".join(checkpoint.notes) or "none",
    }


def _network(spec: ModelSpec) -> str:
    downs = " ".join(map(str, spec.downs))
    shape = " x ".join(map(str, spec.image_shape))
    return (
        f"{spec.name}, downs {downs}, time_emb_dim {spec.time_emb_dim}, time embedding {spec.time_embedding}, "
        f"images {shape}"
    )


def _sampler(spec: SamplerSpec) -> str:
    extra = {"ddpm": f", variance {spec.variance}", "ddim": f", eta {spec.eta:g}", "dpmpp": ""}[spec.name]
    return f"{spec.name}, {spec.steps} of {spec.timesteps} timesteps, schedule {spec.schedule}{extra}"


def _shards(n_samples: int, batch_size: int) -> str:
    count = shard_count(n_samples, batch_size)
    return f"{count} shard{'s' * (count > 1)} of at most {batch_size} samples"


def _workers(job: Job, plan: Identity) -> str:
    resources = job.resources
    share = f"{resources.num_cpus_per_task:g} CPU"
    if plan.device == "cuda":
        share = f"{resources.num_gpus_per_task:g} GPU and {share}"
    most = min(resources.workers or job.n_samples, shard_count(job.n_samples, plan.batch_size))
    return f"at most {most}, each with {share}"


def _each(plans: Sequence[Identity], words: Callable[[Identity], str]) -> str:
    if len(plans) == 1:
        return words(plans[0])
    return "; ".join(f"on {plan.device}: {words(plan)}" for plan in plans)


def _stored(store: Store, there: Identity | None, n_samples: int, *, overwrite: bool) -> str:
    if overwrite:
        return "whatever run is there will be removed"
    if there is None:
        return "nothing yet"
    manifest = store.finished(there, n_samples)
    if manifest is not None:
        return f"all: {manifest.n_samples} samples"
    usable, missing = select(store.scan(there).records, n_samples, there.batch_size)
    return f"{sum(record.size for record in usable)} samples, {len(missing)} shards are missing"
