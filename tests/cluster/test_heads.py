"""What a head pod died of is told, though KubeRay deletes one that has failed before anybody can look at it."""

from __future__ import annotations

import subprocess

import pytest

from tests.cluster.failures import failed, ready_says, told
from tests.cluster.kube import Namespace
from tests.cluster.samplings import LIGHT, LONG, Sampling, head_of, nothing_is_left

ONE_TRY = {"backoffLimit": 0, "resources": LIGHT["resources"]}
# The kernel is to choose Ray's daemon, without which the head's container ends; on cgroup v2 it ends all of it.
# The daemon watches over memory itself, so that it has to stand still; and the memory is no process' own.
NEED_MORE_MEMORY_THAN_THERE_IS = """
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


def test_a_head_that_the_kernel_ends_for_its_memory_is_out_of_memory(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "large", LONG | ONE_TRY)
    sampling.wait(ready_says("Ready"), "a head")
    command = namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", NEED_MORE_MEMORY_THAN_THERE_IS)
    subprocess.run(command, check=False)
    status = failed(namespace, "large")
    told(status, "OutOfMemory", "needed more memory than its limit of 2Gi", "head.memory")
    nothing_is_left(namespace)


def test_an_image_without_ray_is_told_by_the_last_words_of_its_container(
    namespace: Namespace, operator_image: str
) -> None:
    Sampling.apply(namespace, "no-ray", LIGHT | ONE_TRY | {"image": operator_image})
    told(failed(namespace, "no-ray"), "HeadLost", "exit code 127: /bin/bash: line 1: ray: command not found", "head")
    nothing_is_left(namespace)
