"""Turns the errors that Ray raises for a worker into errors of this program, with reason and hint."""

from __future__ import annotations

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpm_inference.errors import DdpmError, Incomplete, OutOfMemory, WorkerLost, shortened
from ddpm_inference.process.cgroup import oom_kills
from ddpm_inference.ray_backend.ray_private import LOW_MEMORY, OOM_REPORT_START, WORKER_EXIT_DETAIL

OOM_KILLS_TIMEOUT = 5.0


def ddpm_error_from(error: RayError) -> DdpmError:
    """Returns the error of this program that describes what failed on a worker."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, DdpmError):
            return cause
        if isinstance(cause, MemoryError):
            return OutOfMemory("a worker ran out of memory", hint="give a smaller --batch_size")
        return Incomplete(f"{type(cause).__name__}: {cause}", hint="this looks like an error of this program")
    text = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError) or LOW_MEMORY in text:
        return OutOfMemory(
            f"Ray killed a worker because its node is running out of memory: {text.partition(OOM_REPORT_START)[0]}",
            hint="give a smaller --batch_size, fewer --workers, or nodes with more memory",
        )
    detail = text.partition(WORKER_EXIT_DETAIL)[2] or text
    return WorkerLost(
        f"a worker died: {shortened(detail)}",
        hint="see the worker's log on its node; a worker that exceeds its memory limit can end like this, too",
    )


def oom_kills_on(node: str) -> int | None:
    """Returns `cgroup.oom_kills` of another node, by its ID; None if the node does not answer in time."""
    on_node = NodeAffinitySchedulingStrategy(node, soft=False)
    as_task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=on_node)  # type: ignore[call-overload]  # not in its stubs
    task = as_task(oom_kills).remote()
    done, _ = ray.wait([task], timeout=OOM_KILLS_TIMEOUT)
    try:
        kills: int | None = ray.get(task) if done else None
    except RayError:
        return None
    return kills
