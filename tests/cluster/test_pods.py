"""A sampling's pods as they run, those of KubeRay's making included: nothing more than they need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.kube import Manifest
from tests.cluster.operator_release import Operator
from tests.cluster.running import Running

# What a process in the container finds out about itself.
INSIDE = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
def takes(folder):
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
    "writable": [it for it in ("/", "/etc", "/opt/ddpm", "/tmp", "/tmp/ray", "/dev/shm") if takes(it)],
    "a token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
}))
"""


def containers(pod: Manifest) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]


ROLES = pytest.mark.parametrize("role", ["head", "worker"])


def test_kuberay_adds_a_container_of_its_own(running: Running) -> None:
    """Else the tests below would not look at one."""
    assert [one["name"] for one in running.pods["worker"]["spec"]["initContainers"]] == ["wait-gcs-ready"]


@ROLES
def test_every_container_is_as_restricted_as_can_be(running: Running, role: str) -> None:
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
def test_what_is_written_is_sized(running: Running, role: str) -> None:
    volumes = {one["name"]: one for one in running.pods[role]["spec"]["volumes"]}
    places = {
        it["mountPath"]: volumes[it["name"]] for it in running.pods[role]["spec"]["containers"][0]["volumeMounts"]
    }
    for place in ("/dev/shm", "/tmp", "/tmp/ray"):
        assert places[place]["emptyDir"]["sizeLimit"]
    assert places["/dev/shm"]["emptyDir"]["medium"] == "Memory"
    kinds = {kind for volume in volumes.values() for kind in volume if kind != "name"}
    assert kinds <= {"emptyDir", "persistentVolumeClaim"}
    assert all(one["emptyDir"].get("sizeLimit") for one in volumes.values() if "emptyDir" in one)


@ROLES
def test_no_pod_has_a_token_or_a_part_of_its_node(running: Running, role: str) -> None:
    pod = running.pods[role]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in pod.items() if value}


@ROLES
def test_what_runs_inside_finds_itself_shut_in(operator: Operator, running: Running, role: str) -> None:
    metadata = running.pods[role]["metadata"]
    where = ["exec", metadata["name"], "--namespace", metadata["namespace"], "--container", f"ray-{role}"]
    found = json.loads(operator.kubectl_says(*where, "--", "python", "-c", INSIDE))
    assert 0 < found.pop("shm") < 2 * 2**30
    assert found == {
        "uid": 1000,
        "capabilities": 0,
        "no new privileges": "1",
        "seccomp": "2",
        "writable": ["/tmp", "/tmp/ray", "/dev/shm"],
        "a token": False,
    }
