"""KubeRay is stopped for more than a minute; the CRD RayCluster is not served for a time."""

from __future__ import annotations

import pytest

from tests.cluster.disruptions import crd_version_unserved, scaled_to_zero
from tests.cluster.failures import assert_failure, cluster_ready_reason, wait_for_failure
from tests.cluster.kube import Namespace, phase
from tests.cluster.samplings import LIGHT, Sampling, assert_nothing_left

RAY_CLUSTERS = "rayclusters.ray.io"
# Half a minute of work, in shards of a few seconds.
SHORT_RUN = LIGHT | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}
NO_RETRY = LIGHT | {"backoffLimit": 0}

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.usefixtures("operator")]


def test_without_kuberay_running_samplings_end_and_new_ones_wait(
    namespace: Namespace,
) -> None:
    running = Sampling.apply(namespace, "running", SHORT_RUN)
    running.wait_for("Running")
    with scaled_to_zero(namespace.cluster, "kuberay-operator"):
        patient = Sampling.apply(namespace, "patient", NO_RETRY)
        Sampling.apply(namespace, "late", NO_RETRY | {"startupDeadlineSeconds": 60})
        for name in ("patient", "late"):
            seen = Sampling(namespace, name).wait(cluster_ready_reason("KubeRayMissing"), f"{name} to report it")
            assert phase(seen) == "Starting"
        running.wait_until_complete(128)
        status = wait_for_failure(namespace, "late")
        assert_failure(
            status, "KubeRayMissing", "exists, but no pods are created for it: KubeRay is not running", "KubeRay 1.6"
        )
        assert "did not begin sampling within 1m00s" in status["failure"]["message"]
    status = patient.wait_until_complete(16)["status"]
    assert (status["attempt"], status["failedAttempts"]) == (1, 0)
    assert_nothing_left(namespace)


def test_a_missing_raycluster_crd_is_reported_and_recovered_from(namespace: Namespace) -> None:
    with crd_version_unserved(namespace.cluster, RAY_CLUSTERS, "v1"):
        Sampling.apply(namespace, "early", NO_RETRY | {"startupDeadlineSeconds": 15})
        early = Sampling(namespace, "early").wait(cluster_ready_reason("KubeRayMissing"), "early to report it")
        assert phase(early) == "Starting"
        assert_failure(
            wait_for_failure(namespace, "early"), "KubeRayMissing", "no CRD for RayCluster of ray.io/v1", "KubeRay 1.6"
        )
    Sampling.apply(namespace, "digits", NO_RETRY).wait_until_complete(16)
    assert_nothing_left(namespace)
