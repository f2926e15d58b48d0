"""The worker image in a pod of the restricted Pod Security level."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch
from kubernetes.client import ApiException

from tests.cluster.kube import Namespace
from tests.cluster.manifests import pod

pytestmark = pytest.mark.no_operator

PRINT_ENVIRONMENT = """
import json, os, pathlib, ray, ssl, torch
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    pathlib.Path("/opt/ddpm/new").touch()
    root = "writable"
except OSError as error:
    root = os.strerror(error.errno)
pathlib.Path("/tmp/new").touch()
weights = torch.ones(1, 1, 3, 3)
print(json.dumps({
    "torch": torch.__version__, "ray": ray.__version__, "root": root, "user": os.getuid(),
    "capabilities": int(status["CapEff"], 16), "seccomp": int(status["Seccomp"]),
    "sum": torch.conv2d(torch.ones(1, 1, 5, 5), weights).sum().item(),
    "has CA certificates": ssl.create_default_context().cert_store_stats()["x509_ca"] > 50,
}))
"""


def test_a_restricted_pod_imports_torch_and_ray(namespace: Namespace, worker_image: str) -> None:
    output = namespace.run_pod(pod("environment", worker_image, ["python", "-c", PRINT_ENVIRONMENT]), seconds=120)
    assert json.loads(output) == {
        "torch": torch.__version__,
        "ray": importlib.metadata.version("ray"),
        "root": "Read-only file system",
        "user": 1000,
        "capabilities": 0,
        "seccomp": 2,
        "sum": 81.0,
        "has CA certificates": True,
    }


def test_namespaces_of_tests_reject_root_pods(namespace: Namespace, worker_image: str) -> None:
    as_root = pod("root", worker_image, ["id"])
    as_root["spec"]["securityContext"] = {"runAsUser": 0, "runAsNonRoot": False}
    with pytest.raises(ApiException) as refused:
        namespace.cluster.core.create_namespaced_pod(namespace.name, as_root, dry_run="All")
    assert refused.value.status == 403
    assert "violates PodSecurity" in refused.value.body
