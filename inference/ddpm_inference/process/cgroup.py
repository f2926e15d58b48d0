"""What the kernel says of the memory of the container that this process is in."""

from __future__ import annotations

from pathlib import Path

# Of cgroup v2 and of v1. On v1 a single process is ended and the container lives on, so nobody else tells of it.
COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


def oom_kills() -> int:
    """How many processes of this container the kernel has ended for its memory; 0 where it cannot be known."""
    for path in COUNTERS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        counts = [line.removeprefix("oom_kill ") for line in lines if line.startswith("oom_kill ")]
        return int(counts[0]) if counts else 0
    return 0
