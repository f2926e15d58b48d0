"""How many actors a node can hold, and what each reserves."""

from __future__ import annotations

import pytest

from ddpm_inference.job import ResourceRequest
from ddpm_inference.ray_backend.actor_resources import ActorResources


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "count"),
    [
        (2, 0, {"CPU": 5.0}, 2),
        (0.5, 0, {"CPU": 2.0}, 4),
        (0.1, 0, {"CPU": 1.0}, 10),
        (3, 0, {"CPU": 2.0}, 0),
        (1, 0.25, {"CPU": 16.0, "GPU": 1.0}, 4),
        (1, 0.25, {"CPU": 2.0, "GPU": 1.0}, 2),
        (1, 0.4, {"CPU": 16.0, "GPU": 2.0}, 4),
        (1, 1 / 3, {"CPU": 16.0, "GPU": 1.0}, 3),
        (1, 2, {"CPU": 16.0, "GPU": 5.0}, 2),
        (1, 0.25, {"CPU": 16.0}, 0),
        (1, 0, {}, 0),
    ],
)
def test_a_node_holds_whole_actors(cpus: float, gpus: float, node: dict[str, float], count: int) -> None:
    assert ActorResources(cpus, gpus).capacity_of(node) == count


def test_an_actor_on_cpu_reserves_no_gpu() -> None:
    request = ResourceRequest(num_gpus_per_task=0.5, num_cpus_per_task=2)
    assert ActorResources.of(request, "cpu") == ActorResources(2, 0)
    assert ActorResources.of(request, "cuda") == ActorResources(2, 0.5)


def test_threads_are_whole_and_at_least_one() -> None:
    assert [ActorResources(cpus, 0).threads for cpus in (0.5, 1, 2.5)] == [1, 1, 2]
