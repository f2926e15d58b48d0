"""The running pods of a sampling, including KubeRay's containers: least privilege."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.kube import Manifest
from tests.cluster.operator_release import Operator
from tests.cluster.running import Running

# Prints the privileges of a process in the container.
PRINT_PRIVILEGES = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def is_writable(folder):
    try:
        open(folder + "/written", "w").close()
    except OSError:
        return False
    os.remove(folder + "/written")
    return True
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no new privileges": status["NoNewPrivs"].strip(),
    "seccomp": status["Seccomp"].strip(),
    "writable": [it for it in ("/", "/etc", "/opt/ddpm", "/tmp", "/tmp/ray", "/dev/shm") if is_writable(it)],
    "a token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}))
"""


def containers(pod: Manifest) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


ROLES = pytest.mark.parametrize("role", ["head", "worker"])


def test_kuberay_adds_an_init_container(running: Running) -> None:
    """Ensures that the tests below cover such a container."""
    assert [one["name"] for one in running.pods["worker"]["spec"]["initContainers"]] == ["wait-gcs-ready"]


@ROLES
def test_every_container_is_restricted(running: Running, role: str) -> None:
    pod = running.pods[role]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(running.pods[role]):
        restricted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["securityContext"] == restricted, container["name"]


@ROLES
def test_every_container_has_limits(running: Running, role: str) -> None:
    for container in containers(running.pods[role]):
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys(), container["name"]


@ROLES
def test_writable_volumes_have_size_limits(running: Running, role: str) -> None:
    volumes = {one["name"]: one for one in running.pods[role]["spec"]["volumes"]}
    mounts = {
        it["mountPath"]: volumes[it["name"]] for it in running.pods[role]["spec"]["containers"][0]["volumeMounts"]
    }
    for path in ("/dev/shm", "/tmp", "/tmp/ray"):
        assert mounts[path]["emptyDir"]["sizeLimit"]
    assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    kinds = {kind for volume in volumes.values() for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}
    assert all(one["emptyDir"].get("sizeLimit") for one in volumes.values() if "emptyDir" in one)


@ROLES
def test_pods_have_no_token_and_no_host_namespaces(running: Running, role: str) -> None:
    pod = running.pods[role]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in pod.items() if value}


@ROLES
def test_processes_are_confined(operator: Operator, running: Running, role: str) -> None:
    metadata = running.pods[role]["metadata"]
    command = ["exec", metadata["name"], "--namespace", metadata["namespace"], "--container", f"ray-{role}"]
    found = json.loads(operator.run_kubectl(*command, "--", "python", "-c", PRINT_PRIVILEGES))
    assert 0 < found.pop("shm") < 2 * 2**30
    assert found == {
        "uid": 1000,
        "capabilities": 0,
        "no new privileges": "1",
        "seccomp": "2",
        "writable": ["/tmp", "/tmp/ray", "/dev/shm"],
        "a token": False,
    }
