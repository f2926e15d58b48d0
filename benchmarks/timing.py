"""Measurement for the benchmarks: interleaved calls, one thread, medians of CPU time."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch


def medians(candidates: dict[str, Callable[[], object]], seconds: float = 4.0) -> dict[str, float]:
    """Returns the median CPU seconds of a call of each candidate, on one thread.

    Calls are interleaved, so that a change in the machine's load affects all candidates. CPU time excludes other
    processes; on an idle machine it equals wall-clock time.
    """
    torch.set_num_threads(1)
    for call in candidates.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    end = time.perf_counter() + seconds * len(candidates)
    while time.perf_counter() < end or min(map(len, taken.values())) < 5:
        for name, call in candidates.items():
            start = time.thread_time()
            call()
            taken[name].append(time.thread_time() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def machine() -> str:
    """Describes date, CPU, instruction set and torch, for the title of a table."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    cpu = f"{len(models)} x {models[0]}" if models else platform.processor()
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{datetime.now(UTC):%Y-%m-%d}, {cpu}, {instructions}, torch {torch.__version__}"
