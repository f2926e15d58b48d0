"""What one worker actor reserves on a node, and how many actors fit on a node. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ddpm_inference.job import Device, ResourceRequest
from ddpm_inference.text import count

Resources = Mapping[str, float]
"""Ray's resource names (CPU, GPU, memory in bytes) and their amounts."""

# Ten actors of 0.1 CPU fit on one CPU, although 1 / 0.1 may come out just below 10.
ROUNDING = 1e-9


@dataclass(frozen=True)
class ActorResources:
    """The CPUs and GPUs that one actor reserves; both may be fractions."""

    cpus: float
    gpus: float

    @classmethod
    def of(cls, request: ResourceRequest, device: Device) -> ActorResources:
        """Returns the requested resources; on device cpu an actor never reserves a GPU."""
        return cls(request.num_cpus_per_task, request.num_gpus_per_task if device == "cuda" else 0.0)

    @property
    def threads(self) -> int:
        """CPU threads of one actor: whole CPUs, at least 1."""
        return max(1, int(self.cpus))

    @property
    def description(self) -> str:
        """The resources as text, for messages."""
        cpus = count(self.cpus, "CPU")
        # Ray says 0.25 GPU, not 0.25 GPUs.
        gpus = f"{self.gpus:g} GPU" if self.gpus < 1 else count(self.gpus, "GPU")
        return f"{gpus} and {cpus}" if self.gpus else cpus

    def capacity_of(self, node: Resources) -> int:
        """Returns how many actors an empty node with these resources can hold.

        Ray places a fraction of a GPU on a single GPU, so the rest of a GPU that is too small for one more is lost.
        """
        by_cpu = math.floor(node.get("CPU", 0) / self.cpus + ROUNDING)
        if not self.gpus:
            return by_cpu
        gpus = node.get("GPU", 0)
        by_gpu = gpus * math.floor(1 / self.gpus + ROUNDING) if self.gpus <= 1 else gpus // self.gpus
        return min(by_cpu, int(by_gpu))
