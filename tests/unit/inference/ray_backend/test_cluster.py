"""How much room nodes have, and how they are shown."""

from __future__ import annotations

import json
import os
import re

import pytest
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from ddpm_inference.errors import ResourcesUnavailable
from ddpm_inference.job import ResourceRequest
from ddpm_inference.ray_backend.cluster import (
    ONE_IMAGE,
    ActorResources,
    Node,
    node_table,
    set_up_on_nodes,
    torch_of,
)
from ddpm_inference.ray_backend.node_packages import NodePackages, find_packages


@pytest.mark.parametrize(
    ("cpus", "gpus", "node", "count"),
    [
        (1, 0, {"CPU": 2.0}, 2),
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
def test_a_node_has_room_for_whole_shares(cpus: float, gpus: float, node: dict[str, float], count: int) -> None:
    assert ActorResources(cpus, gpus).fits(node) == count


def test_a_worker_on_cpu_asks_for_no_gpu() -> None:
    request = ResourceRequest(num_gpus_per_task=0.5, num_cpus_per_task=2)
    assert ActorResources.of(request, "cpu") == ActorResources(2, 0)
    assert ActorResources.of(request, "cuda") == ActorResources(2, 0.5)


def test_threads_are_whole_and_at_least_one() -> None:
    assert [ActorResources(cpus, 0).threads for cpus in (0.5, 1, 2.5)] == [1, 1, 2]


def test_the_table_shows_what_is_free_beside_what_there_is() -> None:
    nodes = [
        Node("a", "10.0.0.1", {"CPU": 8.0, "GPU": 1.0, "memory": 16 * 2.0**30}),
        Node("b", "10.0.0.2", {"CPU": 2.0}),
    ]
    head, first, second = node_table(nodes, {"a": {"CPU": 2.5, "memory": 2.0**30}}).splitlines()
    assert head.split() == ["NODE", *(word for kind in ("CPU", "GPU", "GIB") for word in (kind, "FREE", "OF"))]
    assert first.split() == ["10.0.0.1", "2.5", "8", "0", "1", "1", "16"]
    assert second.split() == ["10.0.0.2", "0", "2", "0", "0", "0", "0"]


def test_every_missing_package_is_named_with_the_line_that_installs_it() -> None:
    findings = NodePackages("3.11.7", {"numpy": "2.4.0", "s3fs": None, "safetensors": None}, None)
    with pytest.raises(ResourcesUnavailable, match=r"lack s3fs, safetensors, torch") as refused:
        torch_of(findings)
    assert "pip install 's3fs>=" in refused.value.hint
    assert "'torch>=" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "version", "wanted"),
    [
        ("torch", "2.9.1+cpu", "'torch>=2.10'"),
        ("torch", "1.13.0", "'torch>=2.10'"),
        ("torch", "unknown", "'torch>=2.10'"),
        ("ray", "2.53.9", "'ray[default]>=2.54'"),
    ],
)
def test_a_version_with_known_holes_is_refused(name: str, version: str, wanted: str) -> None:
    packages: dict[str, str | None] = {"ray": "2.54.0"} | ({name: version} if name == "ray" else {})
    findings = NodePackages("3.11.7", packages, version if name == "torch" else "2.10.0")
    with pytest.raises(ResourcesUnavailable, match=f"{name} {re.escape(version)}, which has known holes") as refused:
        torch_of(findings)
    assert wanted in refused.value.hint


def test_the_oldest_versions_without_known_holes_are_taken() -> None:
    assert torch_of(NodePackages("3.11.7", {"ray": "2.54.0"}, "2.10.0+cpu")) == "2.10.0+cpu"


def test_another_version_of_this_package_in_the_one_image_is_refused() -> None:
    findings = NodePackages("3.11.7", {"ray": "2.54.0", "ddpm-inference": "0.0.1"}, "2.10.0")
    with pytest.raises(ResourcesUnavailable, match=r"have ddpm-inference 0\.0\.1, and this is ") as refused:
        torch_of(findings)
    assert refused.value.hint == "let all of them run one image"


def test_in_one_image_ray_sets_nothing_up_not_even_what_it_had_for_this_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = {"metadata": {"job_submission_id": "digits-1"}, "runtime_env": {"env_vars": {"DDPM_JOB": "{}"}}}
    monkeypatch.setenv(RAY_JOB_CONFIG_JSON_ENV_VAR, json.dumps(job))
    assert list(set_up_on_nodes()) == ["py_modules", "excludes"]
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == job
    monkeypatch.setenv(ONE_IMAGE, "1")
    assert set_up_on_nodes() == {}
    assert json.loads(os.environ[RAY_JOB_CONFIG_JSON_ENV_VAR]) == {**job, "runtime_env": {}}


def test_this_machine_has_what_workers_need() -> None:
    import torch

    assert torch_of(find_packages(["numpy", "safetensors"])) == torch.__version__
