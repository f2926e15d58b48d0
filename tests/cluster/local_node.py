"""The node of a local cluster from inside, be it that of `hack/node` or kind's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.kube import Cluster, Manifest

NODE = Path(__file__).resolve().parents[2] / "hack/node"


def nodes_kubeconfig() -> Path | None:
    """That of the one-node cluster, if it runs."""
    asked = subprocess.run([NODE / "kubeconfig"], capture_output=True, text=True, check=False)
    return Path(asked.stdout.strip()) if asked.returncode == 0 else None


def past_proxies() -> dict[str, str]:
    """This machine's NO_PROXY and no_proxy with the one-node cluster's addresses, as its own scripts have them."""
    command = ["bash", "-c", 'source "$0" && echo "$NO_PROXY" && echo "$no_proxy"', str(NODE / "lib/settings.sh")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(zip(("NO_PROXY", "no_proxy"), said, strict=True))


def sigkill(cluster: Cluster, pod: Manifest) -> bool:
    """Ends the process of a pod's only container, with no warning; False if its node is closed to this machine."""
    entered = _way_into(cluster, pod["spec"]["nodeName"])
    if entered is None:
        return False
    (container,) = pod["status"]["containerStatuses"]
    identity = container["containerID"].removeprefix("containerd://")
    subprocess.run([*entered, "ctr", "-n", "k8s.io", "task", "kill", "-s", "SIGKILL", identity], check=True)
    return True


def _way_into(cluster: Cluster, node: str) -> list[str] | None:
    """What a command on a node begins with."""
    if cluster.kubeconfig and cluster.kubeconfig == nodes_kubeconfig():
        return [str(NODE / "enter")]
    provider = cluster.core.read_node(node).spec.provider_id or ""
    return ["docker", "exec", node] if provider.startswith("kind://docker/") else None
