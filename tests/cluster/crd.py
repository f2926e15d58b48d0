"""Installs the CRD of this working tree."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.kube import Cluster

CRD = Path(__file__).parents[2] / "charts" / "ddpm-ray" / "templates" / "crd.yaml"


def install_crd(cluster: Cluster) -> None:
    """Applies the CRD and waits until it is served."""
    apply = cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    wait = cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRD))
    for command in (apply, wait):
        subprocess.run(command, check=True)
