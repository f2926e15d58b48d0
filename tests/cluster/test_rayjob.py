"""KubeRay's own RayJob, with which the operator is compared."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.cluster.conftest import COLLECTED
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.manifests import RAY_VERSION, ray_cluster_spec

ENTRYPOINT = "python -c \"import ray; ray.init(); print(ray.get(ray.remote(lambda: 'hello').remote()))\""
TERMINAL_STATES = ("Complete", "Failed", "ValidationFailed")

pytestmark = [pytest.mark.no_operator, pytest.mark.long]


def ray_job(name: str, image: str) -> Manifest:
    """Returns a RayJob in HTTPMode, KubeRay's faster mode, which needs no submitter pod."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": ENTRYPOINT,
            "submissionMode": "HTTPMode",
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": ray_cluster_spec(image),
        },
    }


def has_ended(job: Manifest) -> bool:
    return job.get("status", {}).get("jobDeploymentStatus") in TERMINAL_STATES


def test_a_rayjob_completes(namespace: Namespace, worker_image: str) -> None:
    began = time.monotonic()
    namespace.apply(ray_job("hello", worker_image))
    job = namespace.wait("ray.io/v1", "RayJob", "hello", has_ended, 240, "the RayJob to end")
    took = time.monotonic() - began

    assert (job["status"]["jobDeploymentStatus"], job["status"]["jobStatus"]) == ("Complete", "SUCCEEDED")
    record_duration(took)


def record_duration(seconds: float) -> None:
    """Records the time from apply to Complete, for the comparison; no test depends on it."""
    COLLECTED.mkdir(parents=True, exist_ok=True)
    load = round(os.getloadavg()[0], 1)  # shows whether the machine was busy
    record = {
        "seconds": round(seconds, 1),
        "mode": "HTTPMode",
        "ray": RAY_VERSION,
        "load": load,
        "cpus": os.cpu_count(),
    }
    (COLLECTED / "rayjob.json").write_text(json.dumps(record) + "\n")
