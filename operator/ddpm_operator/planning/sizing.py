"""Computes the plan of a sampling: workers, GPUs, batch size and pod sizes, with an explanation. Pure.

The samples are divided into shards of one batch each. A shard is the smallest unit of work, so the plan never has more
workers, GPUs or tasks than shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ddpm_operator.api import Plan, Spec
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.api.spec import SamplerName
from ddpm_operator.api.uri import builtin_name
from ddpm_operator.text import count

Device = Literal["cpu", "cuda"]


class Cost(NamedTuple):
    """What one evaluation of a network costs, for one sample; as `ddpm_inference.job.Cost`.

    Attributes:
        flops: floating-point operations, where a multiplication with its addition counts as two.
        activation_bytes: memory of the activations at the peak, in fp32.
    """

    flops: int
    activation_bytes: int


class Budget(NamedTuple):
    """Limits of a batch: the first that is reached decides."""

    rows: int
    flops: int
    activation_bytes: int


# Copies of values in ddpm_inference, which the operator never imports; a test compares them.
BUDGETS: dict[Device, Budget] = {
    "cpu": Budget(rows=32, flops=250 * 10**9, activation_bytes=128 << 20),
    "cuda": Budget(rows=512, flops=8 * 10**12, activation_bytes=4 << 30),
}
GUIDE_COST_OF_A_PIXEL = Cost(flops=100_000, activation_bytes=4096)
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20, "heun": 20, "unipc": 20}
DEFAULT_TIMESTEPS = 1000
BUILTIN_SHAPES: dict[str, tuple[int, int, int]] = {"mnist": (1, 28, 28)}

# Network evaluations of a 28x28 image, each about 1 ms on one CPU. Workers start about 15 s later than a head that
# samples alone, so a job up to this size would be finished before they could help.
SMALL_JOB_EVALUATIONS = 50_000
_SMALL_JOB_FLOPS = SMALL_JOB_EVALUATIONS * 28 * 28 * GUIDE_COST_OF_A_PIXEL.flops
# Starting Ray and the driver takes 10 CPU seconds in a dozen concurrent processes. With a CPU limit equal to its
# request, a small head is throttled all that time. Only the limit is raised: a higher request would reserve more CPU.
_HEAD_CPU_BURST = 1
# (C, H, W) and cost assumed when only the checkpoint knows them. Pipelines are most often of 256x256 images and 114 M
# parameters, of which the weights are 455 MB.
_ASSUMED_SHAPE = (3, 64, 64)
_ASSUMED_PIPELINE_SHAPE = (3, 256, 256)
_ASSUMED_PIPELINE_FLOPS = 500 * 10**9
# Ray, torch and the process of a worker or driver without a network.
_BASE_MEMORY = 1 << 30
# Of a worker's weights: those of its network and those that it prepares for execution. Of the head: the file and the
# arrays that are read from it.
_COPIES_OF_WEIGHTS = 2
_WEIGHT_FILES = (".safetensors", ".pt", ".pth")


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


def default_batch_size(cost: Cost, device: Device) -> int:
    """Returns the batch size for an unset spec.batchSize; equal to `ddpm_inference.job.default_batch_size`."""
    budget = BUDGETS[device]
    size = budget.rows
    while size > 1 and (size * cost.flops > budget.flops or size * cost.activation_bytes > budget.activation_bytes):
        size //= 2
    return size


def guide_cost(height: int, width: int) -> Cost:
    """Returns the nominal cost of a network of the guide, which does not depend on its widths."""
    return Cost(*(value * height * width for value in GUIDE_COST_OF_A_PIXEL))


def plan(spec: Spec, previous: Plan | None = None) -> Plan:
    """Returns the plan of an attempt.

    Args:
        spec: the current spec.
        previous: the plan of an earlier attempt. Its device, batch size and hardware are kept: they determine the
            samples.

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
    shards = -(-spec.samples // (batch_size or BUDGETS[device].rows))
    known_shards = shards if batch_size else None
    planner = _plan_gpus if device == "cuda" else _plan_cpus
    planned = planner(spec, batch_size, shards, known_shards, batch_size_reason)
    return planned.model_copy(update={"hardware": previous.hardware}) if previous else planned


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
    return samples * _steps(spec) * _flops(spec) <= _SMALL_JOB_FLOPS


def claim_size(spec: Spec) -> str:
    """Returns the size of the output claim for an unset size: 16 bytes per pixel and channel, at least 1Gi.

    The shards and samples.npy take 4 bytes each; the total is doubled to leave room for an increase of `samples`.
    """
    channels, height, width = _shape(spec) or _assumed_shape(spec)
    gibibytes = -(-2 * 8 * spec.samples * channels * height * width // 2**30)
    return binary(max(1, gibibytes) * 2**30)


def _device(spec: Spec) -> Device:
    if spec.resources.device == "auto":
        return "cuda" if spec.resources.gpus else "cpu"
    return spec.resources.device


def _shape(spec: Spec) -> tuple[int, int, int] | None:
    """Returns (C, H, W), or None if only the checkpoint knows them."""
    model = spec.model
    builtin = BUILTIN_SHAPES.get(builtin_name(model.uri) or "")
    if builtin:
        return builtin
    if model.footprint:
        return (model.footprint.channels, model.footprint.height, model.footprint.width)
    if not model.img_size:
        return None
    return (model.channels or (1 if _is_guide_network(spec) else 3), model.img_size, model.img_size)


def _assumed_shape(spec: Spec) -> tuple[int, int, int]:
    return _ASSUMED_SHAPE if _is_guide_network(spec) else _ASSUMED_PIPELINE_SHAPE


def _is_guide_network(spec: Spec) -> bool:
    """Returns whether a checkpoint without a footprint is taken for a network of the guide: it is a single file, or has
    fields of such a network. Others may be pipelines, whose cost does not follow from the image size."""
    model = spec.model
    if model.footprint:
        return False
    if model.name or model.downs or model.time_emb_dim or model.time_embedding or builtin_name(model.uri):
        return True
    return model.uri.partition("?")[0].endswith(_WEIGHT_FILES)


def _cost(spec: Spec) -> Cost | None:
    """Returns the cost of an evaluation; None if only the checkpoint knows it."""
    if footprint := spec.model.footprint:
        return Cost(footprint.flops, footprint.activation_bytes)
    shape = _shape(spec)
    return guide_cost(*shape[1:]) if shape and _is_guide_network(spec) else None


def _flops(spec: Spec) -> int:
    """Returns the operations of an evaluation of one sample, assumed if unknown."""
    cost = _cost(spec)
    if cost:
        return cost.flops
    return guide_cost(*_ASSUMED_SHAPE[1:]).flops if _is_guide_network(spec) else _ASSUMED_PIPELINE_FLOPS


def _batch_size(spec: Spec, device: Device, previous: Plan | None) -> tuple[int | None, str]:
    """Returns the batch size and why it was chosen; (None, "") if it depends on the checkpoint."""
    if previous and previous.batch_size:
        return previous.batch_size, "as in the first attempt"
    if spec.batch_size:
        return spec.batch_size, "as requested"
    shape, cost = _shape(spec), _cost(spec)
    if shape and cost:
        _, height, width = shape
        network = f" and {_operations(cost.flops)} an evaluation" if spec.model.footprint else ""
        return default_batch_size(cost, device), f"chosen for {height}x{width} pixels{network} on {device}"
    return None, ""


def _plan_cpus(
    spec: Spec, batch_size: int | None, shards: int, known_shards: int | None, batch_size_reason: str
) -> Plan:
    slots = _slots(spec.resources.worker.cpu)
    why = [_explain_shards(spec, batch_size, shards, batch_size_reason, "cpu")]
    if spec.resources.gpus:
        why.append("The first attempt ran on CPUs, so later attempts do not use GPUs.")
    evaluations = spec.samples * _steps(spec)
    _, height, width = _shape(spec) or _assumed_shape(spec)
    workers = min(spec.resources.max_workers, -(-shards // slots))
    if spec.resources.max_workers == 0:
        why.append("maxWorkers is 0, so the head draws all samples.")
    elif shards == 1:
        workers = 0
        why.append("There is only one shard, so the head draws it without waiting for a worker.")
    elif is_small(spec, spec.samples):
        workers = 0
        why.append(
            f"{evaluations:,} network evaluations of {height}x{width} pixels take about as long as starting "
            "workers, so the head draws all samples."
        )
    else:
        needed = -(-shards // slots)
        limit = f", limited to {workers} by maxWorkers" if workers < needed else ""
        why.append(f"{count(slots, 'concurrent task')} per worker: {count(needed, 'worker')} for all shards{limit}.")
        why.append("The head runs only the driver.")
    if not workers:
        why.append("Without workers, the head gets the cpu and memory of a worker if they are larger than its own.")
    why += _assumptions(spec)
    why += _explain_memory(spec, batch_size, "cpu", slots, on_workers=workers > 0)
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
    why += _assumptions(spec)
    why += _explain_memory(spec, batch_size, "cuda", each * tasks, on_workers=True)
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
    guide = _is_guide_network(spec)
    depends, exact = ("image size", "model.imgSize or batchSize") if guide else ("network", "batchSize")
    return (
        f"{samples}; the batch size depends on the checkpoint's {depends} and is at most {BUDGETS[device].rows}, so "
        f"there are {count(shards, 'shard')} or more. Set {exact} for an exact plan."
    )


def _assumptions(spec: Spec) -> list[str]:
    """Returns what the plan assumes of a checkpoint that the operator cannot read, as a sentence."""
    if _is_guide_network(spec) or spec.model.footprint:
        return []
    channels, height, width = _shape(spec) or _assumed_shape(spec)
    return [
        f"The operator does not read {spec.model.uri.partition('://')[0]}://: it assumes {height}x{width} pixels, "
        f"{count(channels, 'channel')} and {_operations(_ASSUMED_PIPELINE_FLOPS)} an evaluation. Set model.footprint, "
        "or submit the pipeline from a local folder, for a plan of its own."
    ]


def _explain_memory(spec: Spec, batch_size: int | None, device: Device, tasks: int, *, on_workers: bool) -> list[str]:
    """Returns a sentence for each kind of pod whose memory is probably too small for the weights.

    Args:
        tasks: concurrent ones on one pod.
    """
    footprint = spec.model.footprint
    if footprint is None:
        return []
    weights, resources = footprint.weight_bytes, spec.resources
    activations = (batch_size or 1) * footprint.activation_bytes if device == "cpu" else 0
    drawing = tasks * (_COPIES_OF_WEIGHTS * weights + activations)
    reading = _COPIES_OF_WEIGHTS * weights
    # The weights are in Ray's object store once on each pod.
    if on_workers:
        pods = [("worker", resources.worker.memory, drawing), ("head", resources.head.memory, reading)]
    else:
        pods = [("worker", max(resources.head.memory, resources.worker.memory, key=parse), drawing + reading)]
    return [
        f"The weights take {_mebibytes(weights)}: a {pod if on_workers else 'head that draws'} needs about "
        f"{_mebibytes(needed + weights + _BASE_MEMORY)}, more than its memory of {memory}. Set resources.{pod}.memory."
        for pod, memory, needed in pods
        if needed + weights + _BASE_MEMORY > parse(memory)
    ]


def _operations(flops: int) -> str:
    return f"{flops / 1e9:,.3g} GFLOP" if flops < 10**12 else f"{flops / 1e12:,.3g} TFLOP"


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20):,}Mi"
