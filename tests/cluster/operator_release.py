"""The operator as its users install it, and what can happen to it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.kube import Cluster, Namespace

RELEASE = NAMESPACE = "ddpm-ray"
SELECTOR = "app.kubernetes.io/name=ddpm-operator"


@dataclass(frozen=True)
class Operator:
    """A release of the chart with the images of the tree."""

    cluster: Cluster
    helm: Path
    chart: Path
    image: str
    worker_image: str

    @property
    def namespace(self) -> Namespace:
        return Namespace(self.cluster, NAMESPACE)

    def install(self) -> None:
        """Installs or upgrades it, and waits until it is ready."""
        values = f"image.name={self.image},worker.image={self.worker_image}"
        places = ["--namespace", NAMESPACE, "--create-namespace", "--take-ownership"]
        self.helm_says("upgrade", "--install", RELEASE, str(self.chart), *places, "--wait", "--set-string", values)

    def uninstall(self) -> None:
        """Takes it away with all that belongs to it but the CRD."""
        self.helm_says("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
        self.namespace.wait_for_none("v1", "Pod", 60, SELECTOR)

    def kill(self) -> None:
        """Ends its process without a warning, as kill -9 does, and with it the pod. A new one follows."""
        for name in self.pods():
            self.cluster.core.delete_namespaced_pod(name, NAMESPACE, grace_period_seconds=0)

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.namespace.list("v1", "Pod", SELECTOR)]

    def helm_says(self, *arguments: str) -> str:
        """Runs helm on this cluster; raises with what it said if it fails."""
        config = {"KUBECONFIG": str(self.cluster.kubeconfig)} if self.cluster.kubeconfig else {}
        done = subprocess.run(
            [self.helm, *arguments],
            env={**os.environ, **config},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)} said:\n{done.stdout}"
        return done.stdout
