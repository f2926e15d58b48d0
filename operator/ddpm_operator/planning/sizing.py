"""Computes the plan of a sampling: workers, GPUs, batch size and pod sizes, with an explanation. Pure.

The samples are divided into shards of one batch each. A shard is the smallest unit of work, so the plan never has more
workers, GPUs or tasks than shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ddpm_operator.api import Plan, Spec
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.api.spec import SamplerName
from ddpm_operator.api.uri import builtin_name
from ddpm_operator.text import count

Device = Literal["cpu", "cuda"]

# Copies of values in ddpm_inference, which the operator never imports; a test compares them.
MAX_BATCH_SIZE: dict[Device, int] = {"cpu": 32, "cuda": 512}
BATCH_PIXELS: dict[Device, int] = {"cpu": 32 * 1024, "cuda": 1024 * 1024}
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20, "heun": 20, "unipc": 20}
DEFAULT_TIMESTEPS = 1000
BUILTIN_SHAPES: dict[str, tuple[int, int]] = {"mnist": (1, 28)}

# Network evaluations of a 28x28 image, each about 1 ms on one CPU. Workers start about 15 s later than a head that
# samples alone, so a job up to this size would be finished before they could help.
SMALL_JOB_EVALUATIONS = 50_000
_REFERENCE_PIXELS = 28 * 28
# Starting Ray and the driver takes 10 CPU seconds in a dozen concurrent processes. With a CPU limit equal to its
# request, a small head is throttled all that time. Only the limit is raised: a higher request would reserve more CPU.
_HEAD_CPU_BURST = 1
# (channels, image size) assumed when only the checkpoint knows them.
_ASSUMED_SHAPE = (3, 64)


class PlanningError(Exception):
    """A valid spec that conflicts with the plan of an earlier attempt.

    Args:
        message: the conflict.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class PodSize:
    """The resources of one pod.

    Attributes:
        cpu: the CPU request, a quantity.
        cpu_limit: the CPU limit, a quantity.
        memory: the memory request and limit, a quantity.
        gpus: the GPU request and limit.
        slots: the num-cpus that Ray is given, which is the number of concurrent tasks on the pod.
    """

    cpu: str
    cpu_limit: str
    memory: str
    gpus: int
    slots: int


def default_batch_size(img_size: int, device: Device) -> int:
    """Returns the batch size for an unset spec.batchSize; equal to `ddpm_inference.job.default_batch_size`."""
    size = MAX_BATCH_SIZE[device]
    while size > 1 and size * img_size**2 > BATCH_PIXELS[device]:
        size //= 2
    return size


def plan(spec: Spec, previous: Plan | None = None) -> Plan:
    """Returns the plan of an attempt.

    Args:
        spec: the current spec.
        previous: the plan of an earlier attempt. Its device and batch size are kept: they determine the samples.

    Raises:
        PlanningError: if an earlier attempt ran on GPUs and resources.gpus is 0 now.
    """
    device = previous.device if previous else _device(spec)
    if device == "cuda" and spec.resources.gpus == 0:
        raise PlanningError(
            "the first attempt ran on GPUs, but resources.gpus is now 0",
            "set resources.gpus to 1 or more, or create a new DDPMSampling that runs on CPUs",
        )
    batch_size, batch_size_reason = _batch_size(spec, device, previous)
    shards = -(-spec.samples // (batch_size or MAX_BATCH_SIZE[device]))
    known_shards = shards if batch_size else None
    if device == "cuda":
        return _plan_gpus(spec, batch_size, shards, known_shards, batch_size_reason)
    return _plan_cpus(spec, batch_size, shards, known_shards, batch_size_reason)


def head_size(spec: Spec, plan: Plan) -> PodSize:
    """Returns the size of the head pod. Without workers it also runs the tasks; with workers it has no slots."""
    head, worker = spec.resources.head, spec.resources.worker
    if plan.workers:
        return PodSize(head.cpu, _with_burst(head.cpu), head.memory, gpus=0, slots=0)
    cpu, memory = max(head.cpu, worker.cpu, key=parse), max(head.memory, worker.memory, key=parse)
    return PodSize(cpu, _with_burst(cpu), memory, gpus=0, slots=_slots(cpu))


def worker_size(spec: Spec, plan: Plan) -> PodSize:
    """Returns the size of a worker pod.

    Each GPU task has a slot even if there are fewer CPUs, because it mostly waits for the GPU.
    """
    worker = spec.resources.worker
    tasks = plan.gpus_per_worker * (plan.tasks_per_gpu or 0)
    slots = max(tasks, _slots(worker.cpu))
    return PodSize(worker.cpu, worker.cpu, worker.memory, plan.gpus_per_worker, slots)


def is_small(spec: Spec, samples: int) -> bool:
    """Returns whether the head alone would finish this number of samples about as soon as workers could start."""
    _, img_size = _shape(spec) or _ASSUMED_SHAPE
    return samples * _steps(spec) * img_size**2 <= SMALL_JOB_EVALUATIONS * _REFERENCE_PIXELS


def claim_size(spec: Spec) -> str:
    """Returns the size of the output claim for an unset size: 16 bytes per pixel and channel, at least 1Gi.

    The shards and samples.npy take 4 bytes each; the total is doubled to leave room for an increase of `samples`.
    """
    channels, img_size = _shape(spec) or _ASSUMED_SHAPE
    gibibytes = -(-2 * 8 * spec.samples * channels * img_size**2 // 2**30)
    return binary(max(1, gibibytes) * 2**30)


def _device(spec: Spec) -> Device:
    if spec.resources.device == "auto":
        return "cuda" if spec.resources.gpus else "cpu"
    return spec.resources.device


def _shape(spec: Spec) -> tuple[int, int] | None:
    """Returns (channels, image size), or None if only the checkpoint knows them."""
    builtin = BUILTIN_SHAPES.get(builtin_name(spec.model.uri) or "")
    if builtin:
        return builtin
    return (spec.model.channels or 1, spec.model.img_size) if spec.model.img_size else None


def _batch_size(spec: Spec, device: Device, previous: Plan | None) -> tuple[int | None, str]:
    """Returns the batch size and why it was chosen; (None, "") if it depends on the checkpoint."""
    if previous and previous.batch_size:
        return previous.batch_size, "as in the first attempt"
    if spec.batch_size:
        return spec.batch_size, "as requested"
    shape = _shape(spec)
    if shape:
        return default_batch_size(shape[1], device), f"chosen for {shape[1]}x{shape[1]} pixels on {device}"
    return None, ""


def _plan_cpus(
    spec: Spec, batch_size: int | None, shards: int, known_shards: int | None, batch_size_reason: str
) -> Plan:
    slots = _slots(spec.resources.worker.cpu)
    why = [_explain_shards(spec, batch_size, shards, batch_size_reason, "cpu")]
    if spec.resources.gpus:
        why.append("The first attempt ran on CPUs, so later attempts do not use GPUs.")
    evaluations = spec.samples * _steps(spec)
    _, img_size = _shape(spec) or _ASSUMED_SHAPE
    workers = min(spec.resources.max_workers, -(-shards // slots))
    if spec.resources.max_workers == 0:
        why.append("maxWorkers is 0, so the head draws all samples.")
    elif shards == 1:
        workers = 0
        why.append("There is only one shard, so the head draws it without waiting for a worker.")
    elif is_small(spec, spec.samples):
        workers = 0
        why.append(
            f"{evaluations:,} network evaluations of {img_size}x{img_size} pixels take about as long as starting "
            "workers, so the head draws all samples."
        )
    else:
        needed = -(-shards // slots)
        limit = f", limited to {workers} by maxWorkers" if workers < needed else ""
        why.append(f"{count(slots, 'concurrent task')} per worker: {count(needed, 'worker')} for all shards{limit}.")
        why.append("The head runs only the driver.")
    if not workers:
        why.append("Without workers, the head gets the cpu and memory of a worker if they are larger than its own.")
    return Plan(device="cpu", workers=workers, gpus=0, batch_size=batch_size, shards=known_shards, why=tuple(why))


def _plan_gpus(
    spec: Spec, batch_size: int | None, shards: int, known_shards: int | None, batch_size_reason: str
) -> Plan:
    requested = spec.resources
    why = [_explain_shards(spec, batch_size, shards, batch_size_reason, "cuda")]
    useful = min(requested.gpus, shards)
    if useful < requested.gpus:
        why.append(f"{useful} of {count(requested.gpus, 'GPU')} {'is' if useful == 1 else 'are'} used, one per shard.")
    workers, each = _spread(useful, requested.max_workers)
    gpus = workers * each
    if gpus < useful:
        why.append(
            f"{gpus} of {useful} GPUs {'is' if gpus == 1 else 'are'} used: all workers have the same number, and "
            f"maxWorkers is {requested.max_workers}."
        )
    tasks = min(requested.tasks_per_gpu, -(-shards // gpus))
    if tasks < requested.tasks_per_gpu:
        why.append(
            f"{count(tasks, 'task')} per GPU instead of {requested.tasks_per_gpu}, because there are too few shards."
        )
    why.append(f"{count(workers, 'worker')} with {count(each, 'GPU')} each, {count(tasks, 'task')} per GPU.")
    why.append("The head runs only the driver, without a GPU.")
    return Plan(
        device="cuda",
        workers=workers,
        gpus=gpus,
        tasks_per_gpu=tasks,
        batch_size=batch_size,
        shards=known_shards,
        why=tuple(why),
    )


def _spread(gpus: int, max_workers: int) -> tuple[int, int]:
    """Returns (workers, GPUs per worker), with the same number of GPUs on each worker.

    Maximizes the total number of GPUs, then minimizes the GPUs per worker, to keep the pods small. Only two sizes can
    be optimal: the even share rounded down and rounded up.
    """
    sizes = {max(1, gpus // max_workers), -(-gpus // max_workers)}
    return max(
        ((min(max_workers, gpus // size), size) for size in sizes),
        key=lambda spread: (spread[0] * spread[1], -spread[1]),
    )


def _steps(spec: Spec) -> int:
    """Returns the network evaluations per sample."""
    timesteps = spec.sampler.timesteps or DEFAULT_TIMESTEPS
    return spec.sampler.steps or min(DEFAULT_STEPS[spec.sampler.name or "ddpm"] or timesteps, timesteps)


def _with_burst(cpu: str) -> str:
    return f"{(parse(cpu) + _HEAD_CPU_BURST).normalize():f}"


def _slots(cpu: str) -> int:
    """Returns the number of concurrent one-CPU tasks on a pod with this many CPUs."""
    return max(1, int(parse(cpu)))


def _explain_shards(spec: Spec, batch_size: int | None, shards: int, batch_size_reason: str, device: Device) -> str:
    samples = count(spec.samples, "sample")
    if batch_size:
        return f"{samples} in batches of {batch_size} ({batch_size_reason}) make {count(shards, 'shard')}."
    return (
        f"{samples}; the batch size depends on the checkpoint's image size and is at most {MAX_BATCH_SIZE[device]}, so "
        f"there are {count(shards, 'shard')} or more. Set model.imgSize or batchSize for an exact plan."
    )
