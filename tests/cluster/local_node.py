"""Access to the node of a local cluster: the node of `hack/node`, or kind's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.kube import Cluster, Manifest

NODE = Path(__file__).resolve().parents[2] / "hack/node"


def node_kubeconfig() -> Path | None:
    """Returns the kubeconfig of the node of hack/node; None if it does not run."""
    done = subprocess.run([NODE / "kubeconfig"], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def without_proxies() -> dict[str, str]:
    """Returns NO_PROXY and no_proxy with the addresses of the node added, as the scripts of hack/node set them."""
    command = ["bash", "-c", 'source "$0" && echo "$NO_PROXY" && echo "$no_proxy"', str(NODE / "lib/settings.sh")]
    values = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(zip(("NO_PROXY", "no_proxy"), values, strict=True))


def sigkill(cluster: Cluster, pod: Manifest) -> bool:
    """Kills a pod's only container with SIGKILL; returns False if this machine cannot run commands on its node."""
    prefix = _command_prefix(cluster, pod["spec"]["nodeName"])
    if prefix is None:
        return False
    (container,) = pod["status"]["containerStatuses"]
    container_id = container["containerID"].removeprefix("containerd://")
    subprocess.run([*prefix, "ctr", "-n", "k8s.io", "task", "kill", "-s", "SIGKILL", container_id], check=True)
    return True


def _command_prefix(cluster: Cluster, node: str) -> list[str] | None:
    """Returns the command that runs its arguments on a node; None for a remote node."""
    if cluster.kubeconfig and cluster.kubeconfig == node_kubeconfig():
        return [str(NODE / "enter")]
    provider = cluster.core.read_node(node).spec.provider_id or ""
    return ["docker", "exec", node] if provider.startswith("kind://docker/") else None
