"""The operator as its users install it, and what can happen to it."""

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
STARTS_WITHIN = 60.0
SAID_WITHIN = 420.0  # helm itself waits for 5 minutes
CRD = "ddpmsamplings.ddpm-ray.io"

_RESTRICTED = """
apiVersion: v1
kind: Namespace
metadata: {name: %s, labels: {pod-security.kubernetes.io/enforce: restricted}}
"""
# One line of `kubectl auth can-i --list`: a resource, URLs of no resource, names, verbs.
_RIGHT = re.compile(r"^(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]$")


@dataclass(frozen=True)
class Operator:
    """A release of the chart with the images of the tree.

    Attributes:
        values: further ones, as `helm --set` takes them.
        takes_over: whether it takes what another release has left, without a word from its user.
    """

    cluster: Cluster
    helm: Path
    chart: Path
    image: str
    worker_image: str
    release: str = RELEASE
    place: str = NAMESPACE
    values: tuple[str, ...] = ()
    takes_over: bool = True

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{self.place}:{self.release}-operator"

    @property
    def namespace(self) -> Namespace:
        return Namespace(self.cluster, self.place)

    def install(self, *more: str) -> None:
        """Installs or upgrades it, and waits until it is ready.

        Args:
            more: further arguments of `helm upgrade`.
        """
        values = ["--set-string", f"image.name={self.image},worker.image={self.worker_image}"]
        for value in self.values:
            values += ["--set", value]
        self.kubectl_says(
            "apply", "--server-side", "--force-conflicts", "--filename", "-", given=_RESTRICTED % self.place
        )
        places = ["--namespace", self.place]
        if self.takes_over:
            places.append("--take-ownership")
        self.helm_says("upgrade", "--install", self.release, str(self.chart), *places, "--wait", *values, *more)

    def uninstall(self) -> None:
        """Takes it away with all that belongs to it but the CRD and its key."""
        self.helm_says("uninstall", self.release, "--namespace", self.place, "--wait")
        self.namespace.wait_for_none("v1", "Pod", 60, SELECTOR)

    def take_crd(self) -> None:
        """Makes the CRD that another release has left this one's, as the chart says it is done."""
        owner = [
            f"meta.helm.sh/release-name={self.release}",
            f"meta.helm.sh/release-namespace={self.place}",
        ]
        self.kubectl_says("annotate", "crd", CRD, "--overwrite", *owner)

    def kill(self) -> None:
        """Ends its process by SIGKILL; the pod stays, and the kubelet starts the container again at once.

        The next time it would wait for ten seconds, then for twenty and so on. So a pod that was killed before is
        deleted as well, with no process left that could hear of that, and another pod follows. Where the node
        cannot be entered, the pod is deleted alone: its process then gets a SIGTERM, and ends in order.
        """
        with FileLock(Path(tempfile.gettempdir()) / "ddpm-ray-tests-kill.lock"):
            (pod,) = self.namespace.wait_for_all("v1", "Pod", run, STARTS_WITHIN, "the operator to run", SELECTOR)
            name = pod["metadata"]["name"]
            killed = sigkill(self.cluster, pod)
            if not killed:
                warnings.warn("the node cannot be entered: the operator ended in order", stacklevel=2)
            if killed and not restarts_of(pod):
                again = f"{name} to be started again"
                self.namespace.wait("v1", "Pod", name, lambda it: restarts_of(it) == 1, STARTS_WITHIN, again)
            else:
                self.cluster.core.delete_namespaced_pod(name, self.place, grace_period_seconds=0)

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.namespace.list("v1", "Pod", SELECTOR)]

    def restarts(self) -> dict[str, int]:
        """How often the container of each pod has been started again."""
        pods = self.namespace.list("v1", "Pod", SELECTOR)
        return {pod["metadata"]["name"]: restarts_of(pod) for pod in pods}

    def rights(self, namespace: str) -> dict[tuple[str, str], str]:
        """What its account may do in a namespace: (resource, names) -> verbs, sorted.

        Without what every account may, which is to ask about itself and to read the API's own description.
        """
        whose = ["--namespace", namespace, "--as", self.account]
        said = self.kubectl_says("auth", "can-i", "--list", "--no-headers", *whose)
        found = [_RIGHT.match(line) for line in said.splitlines()]
        rights = [match.groups() for match in found if match]
        assert len(rights) == len(found), said
        own = [(what, names, verbs) for what, _, names, verbs in rights if what]
        return {
            (what, names): " ".join(sorted(verbs.split()))
            for what, names, verbs in own
            if not what.startswith("selfsubject")
        }

    def kubectl_says(self, *arguments: str, given: str = "") -> str:
        """Runs kubectl on this cluster; its standard output. Raises with all that it said if it fails.

        What it says beside that is not for programs: without kubernetes/kubernetes#131203, ``kubectl exec``
        may complain of the empty message that comes before its streams are made.
        """
        return _says(self.cluster.kubectl(*arguments), {}, given)

    def helm_says(self, *arguments: str) -> str:
        """Runs helm on this cluster; its standard output. Raises with all that it said if it fails."""
        config = {"KUBECONFIG": str(self.cluster.kubeconfig)} if self.cluster.kubeconfig else {}
        return _says([str(self.helm), *arguments], config, "")


def restarts_of(pod: Manifest) -> int:
    """How often the containers of a pod have been started again."""
    return sum(it["restartCount"] for it in _containers(pod))


def run(pods: list[Manifest]) -> bool:
    """Whether there are pods, and the containers of each run."""
    return bool(pods) and all(
        _containers(pod) and all("running" in it["state"] for it in _containers(pod)) for pod in pods
    )


def _containers(pod: Manifest) -> list[Manifest]:
    return pod.get("status", {}).get("containerStatuses") or []


def _says(command: list[str], environment: dict[str, str], given: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=SAID_WITHIN,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} said:\n{done.stdout}{done.stderr}"
    return done.stdout
