"""The failure names why a head pod died, although KubeRay deletes failed heads at once."""

from __future__ import annotations

import subprocess

import pytest

from tests.cluster.failures import assert_failure, cluster_ready_reason, wait_for_failure
from tests.cluster.kube import Namespace
from tests.cluster.samplings import LIGHT, LONG, Sampling, assert_nothing_left, head_of

NO_RETRY = {"backoffLimit": 0, "resources": LIGHT["resources"]}
# Makes the kernel kill the raylet, without which the head's container exits; on cgroup v2 it kills the whole container.
# The raylet monitors memory itself, so it is stopped first; the memory belongs to no process, but to a memfd.
EXHAUST_MEMORY = """
import os, pathlib, signal
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        name = pathlib.Path("/proc", process, "comm").read_text().strip()
    except OSError:
        continue
    if name == "raylet":
        pathlib.Path("/proc", process, "oom_score_adj").write_text("1000")
        os.kill(int(process), signal.SIGSTOP)
memory = os.memfd_create("memory")
while True:
    os.write(memory, bytes(2**24))
"""

pytestmark = pytest.mark.usefixtures("operator")


def test_a_head_killed_for_its_memory_is_out_of_memory(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "large", LONG | NO_RETRY)
    sampling.wait(cluster_ready_reason("Ready"), "a head")
    command = namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", EXHAUST_MEMORY)
    subprocess.run(command, check=False)
    status = wait_for_failure(namespace, "large")
    assert_failure(status, "OutOfMemory", "needed more memory than its limit of 2Gi", "head.memory")
    assert_nothing_left(namespace)


def test_an_image_without_ray_fails_with_the_containers_output(namespace: Namespace, operator_image: str) -> None:
    Sampling.apply(namespace, "no-ray", LIGHT | NO_RETRY | {"image": operator_image})
    assert_failure(
        wait_for_failure(namespace, "no-ray"),
        "HeadLost",
        "exit code 127: /bin/bash: line 1: ray: command not found",
        "head",
    )
    assert_nothing_left(namespace)
