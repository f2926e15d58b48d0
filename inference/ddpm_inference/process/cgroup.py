"""Reads from the cgroup how many processes of this container the kernel has killed for memory."""

from __future__ import annotations

from pathlib import Path

# cgroup v2, then v1. With v1 the kernel kills one process and the container lives on, so Kubernetes does not report it.
COUNTER_FILES = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def oom_kills() -> int:
    """Returns the number of OOM kills in this container so far; 0 where it cannot be read."""
    for path in COUNTER_FILES:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        counts = [line.removeprefix("oom_kill ") for line in lines if line.startswith("oom_kill ")]
        return int(counts[0]) if counts else 0
    return 0
