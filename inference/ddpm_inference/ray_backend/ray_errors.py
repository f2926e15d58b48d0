"""What went wrong on a worker, from what Ray says of it and what its node knows."""

from __future__ import annotations

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpm_inference.errors import DdpmError, Incomplete, OutOfMemory, WorkerLost, in_short
from ddpm_inference.process.cgroup import oom_kills

ASK_SECONDS = 5.0


def cause_of(error: RayError) -> DdpmError:
    """What went wrong on a worker, as an error of this program."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, DdpmError):
            return cause
        if isinstance(cause, MemoryError):
            return OutOfMemory("a worker ran out of memory", hint="give a smaller --batch_size")
        return Incomplete(f"{type(cause).__name__}: {cause}", hint="this looks like an error of this program")
    said = " ".join(str(error).split())
    if isinstance(error, OutOfMemoryError) or "low on memory" in said:
        return OutOfMemory(
            f"Ray ended a worker since its node runs out of memory: {said.partition(' OOM kill reason')[0]}",
            hint="give a smaller --batch_size, fewer --workers, or nodes with more memory",
        )
    # Before that Ray tells whose end it was, at length.
    detail = said.partition("Worker exit detail: ")[2] or said
    return WorkerLost(
        f"a worker died: {in_short(detail)}",
        hint="see the worker's log on its node; one that needs more memory than it may have ends like this, too",
    )


def ask_oom_kills(node: str) -> int | None:
    """See `cgroup.oom_kills`, of another node; None if it does not answer in time."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    ask = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)  # type: ignore[call-overload]  # not in its stubs
    task = ask(oom_kills).remote()
    done, _ = ray.wait([task], timeout=ASK_SECONDS)
    try:
        kills: int | None = ray.get(task) if done else None
    except RayError:
        return None
    return kills
