"""KubeRay away, for a minute and more, and a cluster that for a time knows no RayCluster."""

from __future__ import annotations

import pytest

from tests.cluster.failures import failed, ready_says, told
from tests.cluster.hindrances import unserved, without
from tests.cluster.kube import Namespace, phase
from tests.cluster.samplings import LIGHT, Sampling, nothing_is_left

RAY_CLUSTERS = "rayclusters.ray.io"
# Half a minute of work, in shards of seconds.
A_WHILE = LIGHT | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}
ONE_TRY = LIGHT | {"backoffLimit": 0}

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.usefixtures("operator")]


def test_without_kuberay_what_runs_ends_and_goes_and_what_begins_waits_for_it_until_its_deadline(
    namespace: Namespace,
) -> None:
    running = Sampling.apply(namespace, "running", A_WHILE)
    running.wait_for("Running")
    with without(namespace.cluster, "kuberay-operator"):
        patient = Sampling.apply(namespace, "patient", ONE_TRY)
        Sampling.apply(namespace, "late", ONE_TRY | {"startupDeadlineSeconds": 60})
        for name in ("patient", "late"):
            seen = Sampling(namespace, name).wait(ready_says("KubeRayMissing"), f"{name} to say what is missing")
            assert phase(seen) == "Starting"
        running.wait_until_complete(128)
        status = failed(namespace, "late")
        told(status, "KubeRayMissing", "is there, and nobody makes pods of it: KubeRay does not run", "KubeRay 1.6")
        assert "has not begun to sample within 1m00s" in status["failure"]["message"]
    status = patient.wait_until_complete(16)["status"]
    assert (status["attempt"], status["failedAttempts"]) == (1, 0)
    nothing_is_left(namespace)


def test_a_cluster_that_knows_no_raycluster_is_told_so_and_works_again_once_it_does(namespace: Namespace) -> None:
    with unserved(namespace.cluster, RAY_CLUSTERS, "v1"):
        Sampling.apply(namespace, "early", ONE_TRY | {"startupDeadlineSeconds": 15})
        early = Sampling(namespace, "early").wait(ready_says("KubeRayMissing"), "early to say what is missing")
        assert phase(early) == "Starting"
        told(failed(namespace, "early"), "KubeRayMissing", "knows no RayCluster of ray.io/v1", "KubeRay 1.6")
    Sampling.apply(namespace, "digits", ONE_TRY).wait_until_complete(16)
    nothing_is_left(namespace)
