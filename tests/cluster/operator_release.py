"""The operator's Helm release: installs, uninstalls and kills it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.cluster.kube import Cluster, Manifest, Namespace
from tests.cluster.local_node import sigkill

RELEASE = NAMESPACE = "ddpm-ray"
SELECTOR = "app.kubernetes.io/name=ddpm-operator"
START_TIMEOUT = 60.0
COMMAND_TIMEOUT = 420.0  # helm itself waits for 5 minutes
CRD = "ddpmsamplings.ddpm-ray.io"

_RESTRICTED = """
apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: restricted}}
"""
# A line of `kubectl auth can-i --list`: resource, non-resource URLs, names, verbs.
_PERMISSION = re.compile(r"^(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]$")


@dataclass(frozen=True)
class Operator:
    """A release of the chart with the images of this working tree.

    Attributes:
        values: additional values, as for `helm --set`.
        take_ownership: whether it takes over objects of another release, as with `helm --take-ownership`.
    """

    cluster: Cluster
    helm: Path
    chart: Path
    image: str
    worker_image: str
    release: str = RELEASE
    namespace_name: str = NAMESPACE
    values: tuple[str, ...] = ()
    take_ownership: bool = True

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{self.namespace_name}:{self.release}-operator"

    @property
    def namespace(self) -> Namespace:
        return Namespace(self.cluster, self.namespace_name)

    def install(self, *more: str) -> None:
        """Installs or upgrades the release and waits until it is ready.

        Args:
            more: additional arguments of `helm upgrade`.
        """
        values = ["--set-string", f"image.name={self.image},worker.image={self.worker_image}"]
        for value in self.values:
            values += ["--set", value]
        self.run_kubectl(
            "apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=_RESTRICTED % self.namespace_name
        )
        flags = ["--namespace", self.namespace_name]
        if self.take_ownership:
            flags.append("--take-ownership")
        self.run_helm("upgrade", "--install", self.release, str(self.chart), *flags, "--wait", *values, *more)

    def uninstall(self) -> None:
        """Uninstalls the release. The CRD and the signing key stay."""
        self.run_helm("uninstall", self.release, "--namespace", self.namespace_name, "--wait")
        self.namespace.wait_for_none("v1", "Pod", 60, SELECTOR)

    def take_crd_ownership(self) -> None:
        """Moves the ownership of the CRD to this release, as the chart's message describes."""
        owner = [
            f"meta.helm.sh/release-name={self.release}",
            f"meta.helm.sh/release-namespace={self.namespace_name}",
        ]
        self.run_kubectl("annotate", "crd", CRD, "--overwrite", *owner)

    def kill(self) -> None:
        """Kills the operator's process with SIGKILL; the kubelet restarts the container at once.

        The next restarts would be delayed by ten seconds, twenty and so on. So a pod that was killed before is also
        deleted after the kill, and its Deployment creates another. Without access to the node the pod is only deleted:
        its process then gets SIGTERM and shuts down gracefully.
        """
        with FileLock(Path(tempfile.gettempdir()) / "ddpm-ray-tests-kill.lock"):
            (pod,) = self.namespace.wait_for_all(
                "v1", "Pod", all_running, START_TIMEOUT, "the operator to run", SELECTOR
            )
            name = pod["metadata"]["name"]
            killed = sigkill(self.cluster, pod)
            if not killed:
                warnings.warn("no access to the node: the operator was shut down gracefully", stacklevel=2)
            if killed and not restarts_of(pod):
                restarted = f"{name} to be restarted"
                self.namespace.wait("v1", "Pod", name, lambda it: restarts_of(it) == 1, START_TIMEOUT, restarted)
            else:
                self.cluster.core.delete_namespaced_pod(name, self.namespace_name, grace_period_seconds=0)

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.namespace.list("v1", "Pod", SELECTOR)]

    def restarts(self) -> dict[str, int]:
        """Returns pod name -> number of restarts of its container."""
        pods = self.namespace.list("v1", "Pod", SELECTOR)
        return {pod["metadata"]["name"]: restarts_of(pod) for pod in pods}

    def permissions(self, namespace: str) -> dict[tuple[str, str], str]:
        """Returns the permissions of its account in a namespace: (resource, names) -> sorted verbs.

        Excludes those that every account has: self-reviews and API discovery.
        """
        flags = ["--namespace", namespace, "--as", self.account]
        output = self.run_kubectl("auth", "can-i", "--list", "--no-headers", *flags)
        found = [_PERMISSION.match(line) for line in output.splitlines()]
        permissions = [match.groups() for match in found if match]
        assert len(permissions) == len(found), output
        own = [(what, names, verbs) for what, _, names, verbs in permissions if what]
        return {
            (what, names): " ".join(sorted(verbs.split()))
            for what, names, verbs in own
            if not what.startswith("selfsubject")
        }

    def run_kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Runs kubectl on this cluster and returns its stdout; an AssertionError has all output if it fails.

        Its stderr is not returned: without the fix of kubernetes/kubernetes#131203, ``kubectl exec`` may print a
        warning about an empty message there.
        """
        return _run(self.cluster.kubectl(*arguments), {}, stdin)

    def run_helm(self, *arguments: str) -> str:
        """Runs helm on this cluster and returns its stdout; an AssertionError has all output if it fails."""
        config = {"KUBECONFIG": str(self.cluster.kubeconfig)} if self.cluster.kubeconfig else {}
        return _run([str(self.helm), *arguments], config, "")


def restarts_of(pod: Manifest) -> int:
    """Returns the number of restarts of a pod's containers."""
    return sum(it["restartCount"] for it in _containers(pod))


def all_running(pods: list[Manifest]) -> bool:
    """Whether there are pods, and all their containers run."""
    return bool(pods) and all(
        _containers(pod) and all("running" in it["state"] for it in _containers(pod)) for pod in pods
    )


def _containers(pod: Manifest) -> list[Manifest]:
    return pod.get("status", {}).get("containerStatuses") or []


def _run(command: list[str], environment: dict[str, str], stdin: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
