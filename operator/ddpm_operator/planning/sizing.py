"""From what is asked for to how it is spread over pods: pure, and explained in sentences.

The samples fall into shards of one batch each. A shard is the smallest piece of work, so nothing is ever asked for
that could not have a shard of its own.
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

# What inference knows and the operator, which never imports it, must know as well; a test holds the two together.
MAX_BATCH_SIZE: dict[Device, int] = {"cpu": 32, "cuda": 512}
BATCH_PIXELS: dict[Device, int] = {"cpu": 32 * 1024, "cuda": 1024 * 1024}
DEFAULT_STEPS: dict[SamplerName, int | None] = {"ddpm": None, "ddim": 50, "dpmpp": 20}
DEFAULT_TIMESTEPS = 1000
BUILTIN_SHAPES: dict[str, tuple[int, int]] = {"mnist": (1, 28)}

# A network evaluation of a 28x28 image takes about a millisecond of one CPU, and workers begin about 15 seconds
# later than a head that samples alone: up to so many evaluations they would come too late to help.
SMALL_JOB = 50_000
_REFERENCE_PIXELS = 28 * 28
# Starting Ray and the driver on a head takes ten seconds of one CPU, in a dozen processes at once. Held down to
# what it asks for, a small head is throttled all the while; it asks for no more, so that nobody loses by this.
_HEAD_MAY_BORROW = 1
# Where the checkpoint alone knows its image size, the job is thought to be of this one.
_ASSUMED_SHAPE = (3, 64)


class PlanningError(Exception):
    """A spec that is valid by itself, but not after what an earlier attempt has chosen.

    Args:
        message: what does not fit.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class PodSize:
    """What one pod asks for, as quantities.

    Attributes:
        cpu, memory: what it is promised; of memory also the most that it gets.
        cpu_limit: CPUs that it may use while nobody else wants them.
        slots: CPUs that Ray counts on it: how many tasks run there at once.
    """

    cpu: str
    cpu_limit: str
    memory: str
    gpus: int
    slots: int


def default_batch_size(img_size: int, device: Device) -> int:
    """The batch size chosen where none is asked for; the same as inference's."""
    size = MAX_BATCH_SIZE[device]
    while size > 1 and size * img_size**2 > BATCH_PIXELS[device]:
        size //= 2
    return size


def plan(spec: Spec, kept: Plan | None = None) -> Plan:
    """How the sampling is spread over pods.

    Args:
        spec: what is asked for now.
        kept: an earlier attempt's plan. Its device and batch size decide what the samples look like and are kept.

    Raises:
        Unplannable: if an earlier attempt ran on GPUs and none may be taken now.
    """
    device = kept.device if kept else _device(spec)
    if device == "cuda" and spec.resources.gpus == 0:
        raise PlanningError(
            "the first attempt ran on GPUs, and resources.gpus is 0 now",
            "set resources.gpus to 1 or more, or create a new DDPMSampling for the CPU",
        )
    batch_size, why_batch = _batch_size(spec, device, kept)
    shards = -(-spec.samples // (batch_size or MAX_BATCH_SIZE[device]))
    known = shards if batch_size else None
    if device == "cuda":
        return _on_gpus(spec, batch_size, shards, known, why_batch)
    return _on_cpus(spec, batch_size, shards, known, why_batch)


def head_size(spec: Spec, chosen: Plan) -> PodSize:
    """The head pod's size: alone it does a worker's work as well, beside others it has no slots for tasks."""
    head, worker = spec.resources.head, spec.resources.worker
    if chosen.workers:
        return PodSize(head.cpu, _borrowing(head.cpu), head.memory, gpus=0, slots=0)
    cpu, memory = max(head.cpu, worker.cpu, key=parse), max(head.memory, worker.memory, key=parse)
    return PodSize(cpu, _borrowing(cpu), memory, gpus=0, slots=_slots(cpu))


def worker_size(spec: Spec, chosen: Plan) -> PodSize:
    """A worker pod's size. On GPUs every task has a slot, whatever the CPUs: it waits for the GPU anyway."""
    worker = spec.resources.worker
    tasks = chosen.gpus_per_worker * (chosen.tasks_per_gpu or 0)
    slots = max(tasks, _slots(worker.cpu))
    return PodSize(worker.cpu, worker.cpu, worker.memory, chosen.gpus_per_worker, slots)


def is_small(spec: Spec, samples: int) -> bool:
    """Whether so many samples are about done before workers that are begun for them would be there."""
    _, img_size = _shape(spec) or _ASSUMED_SHAPE
    return samples * _steps(spec) * img_size**2 <= SMALL_JOB * _REFERENCE_PIXELS


def claim_size(spec: Spec) -> str:
    """The size of the output's claim where none is asked for: 8 bytes a pixel, twice, at least 1Gi.

    Shards and samples.npy hold each pixel as 4 bytes; twice, so that `samples` may grow.
    """
    channels, img_size = _shape(spec) or _ASSUMED_SHAPE
    gibibytes = -(-2 * 8 * spec.samples * channels * img_size**2 // 2**30)
    return binary(max(1, gibibytes) * 2**30)


def _device(spec: Spec) -> Device:
    if spec.resources.device == "auto":
        return "cuda" if spec.resources.gpus else "cpu"
    return spec.resources.device


def _shape(spec: Spec) -> tuple[int, int] | None:
    """(channels, image size), or None where only the checkpoint knows."""
    builtin = BUILTIN_SHAPES.get(builtin_name(spec.model.uri) or "")
    if builtin:
        return builtin
    return (spec.model.channels or 1, spec.model.img_size) if spec.model.img_size else None


def _batch_size(spec: Spec, device: Device, kept: Plan | None) -> tuple[int | None, str]:
    shape = _shape(spec)
    if kept and kept.batch_size:
        return kept.batch_size, "as in the first attempt"
    if spec.batch_size:
        return spec.batch_size, "as asked for"
    if shape:
        return default_batch_size(shape[1], device), f"chosen for {shape[1]}x{shape[1]} pixels on {device}"
    return None, ""


def _on_cpus(spec: Spec, batch_size: int | None, shards: int, known: int | None, why_batch: str) -> Plan:
    slots = _slots(spec.resources.worker.cpu)
    why = [_why_shards(spec, batch_size, shards, why_batch, "cpu")]
    if spec.resources.gpus:
        why.append("The first attempt ran on the CPU, and so does every other: no GPU is taken.")
    evaluations = spec.samples * _steps(spec)
    _, img_size = _shape(spec) or _ASSUMED_SHAPE
    workers = min(spec.resources.max_workers, -(-shards // slots))
    if spec.resources.max_workers == 0:
        why.append("maxWorkers is 0: the head samples alone.")
    elif shards == 1:
        workers = 0
        why.append("One shard is one task: the head samples alone, and no worker need be waited for.")
    elif is_small(spec, spec.samples):
        workers = 0
        why.append(
            f"{evaluations:,} network evaluations of {img_size}x{img_size} pixels are about done before workers "
            "are there: the head samples alone."
        )
    else:
        needed = -(-shards // slots)
        limit = f", and maxWorkers allows {workers}" if workers < needed else ""
        why.append(f"{count(slots, 'task')} a worker at once: {count(needed, 'worker')} can be busy{limit}.")
        why.append("The head runs the driver and no task.")
    if not workers:
        why.append("Alone, the head gets a worker's cpu and memory where they are larger than its own.")
    return Plan(device="cpu", workers=workers, gpus=0, batch_size=batch_size, shards=known, why=tuple(why))


def _on_gpus(spec: Spec, batch_size: int | None, shards: int, known: int | None, why_batch: str) -> Plan:
    asked = spec.resources
    why = [_why_shards(spec, batch_size, shards, why_batch, "cuda")]
    useful = min(asked.gpus, shards)
    if useful < asked.gpus:
        why.append(f"{useful} of {asked.gpus} GPUs: no more than there are shards.")
    workers, each = _spread(useful, asked.max_workers)
    gpus = workers * each
    if gpus < useful:
        why.append(f"{gpus} of {useful} GPUs: every worker has as many, and maxWorkers is {asked.max_workers}.")
    tasks = min(asked.tasks_per_gpu, -(-shards // gpus))
    if tasks < asked.tasks_per_gpu:
        why.append(f"{count(tasks, 'task')} a GPU instead of {asked.tasks_per_gpu}: there are no more shards.")
    why.append(f"{count(workers, 'worker')} with {count(each, 'GPU')} each, {count(tasks, 'task')} a GPU.")
    why.append("The driver runs on the head, which takes no GPU.")
    return Plan(
        device="cuda",
        workers=workers,
        gpus=gpus,
        tasks_per_gpu=tasks,
        batch_size=batch_size,
        shards=known,
        why=tuple(why),
    )


def _spread(gpus: int, most_workers: int) -> tuple[int, int]:
    """(workers, GPUs on each): as many GPUs in all as so many workers can hold, then few on each, for small pods.

    Two sizes come into question, the even share rounded down and rounded up.
    """
    sizes = {max(1, gpus // most_workers), -(-gpus // most_workers)}
    return max(((min(most_workers, gpus // size), size) for size in sizes), key=lambda it: (it[0] * it[1], -it[1]))


def _steps(spec: Spec) -> int:
    timesteps = spec.sampler.timesteps or DEFAULT_TIMESTEPS
    return spec.sampler.steps or min(DEFAULT_STEPS[spec.sampler.name] or timesteps, timesteps)


def _borrowing(cpu: str) -> str:
    return f"{(parse(cpu) + _HEAD_MAY_BORROW).normalize():f}"


def _slots(cpu: str) -> int:
    """Tasks of one CPU each that run at once on a pod."""
    return max(1, int(parse(cpu)))


def _why_shards(spec: Spec, batch_size: int | None, shards: int, why_batch: str, device: Device) -> str:
    samples = count(spec.samples, "sample")
    if batch_size:
        return f"{samples} in batches of {batch_size} ({why_batch}) are {count(shards, 'shard')}."
    return (
        f"{samples}; the batch size is chosen by the checkpoint's image size, at most {MAX_BATCH_SIZE[device]}: "
        f"{count(shards, 'shard')} or more. Set model.imgSize or batchSize to have the plan made for all of them."
    )
