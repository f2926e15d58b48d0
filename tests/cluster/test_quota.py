"""A ResourceQuota: too small for the plan, full for all pods, full for the workers only."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.failures import assert_failure, cluster_ready_reason, wait_for_failure
from tests.cluster.kube import Condition, Manifest, Namespace, phase
from tests.cluster.manifests import pod
from tests.cluster.samplings import LIGHT, LONG, Sampling

SEEN_TIMEOUT = 60.0
# Much shorter than the time that the sampling waits.
DEADLINE = 40
HARD = {"requests.memory": "6Gi", "count/pods": "2"}
_PART = LIGHT["resources"]["head"]
_LARGE = {"cpu": "100m", "memory": "4Gi"}

pytestmark = pytest.mark.usefixtures("operator")


def head_and_worker(size: Manifest) -> dict[str, Any]:
    """Returns a spec with a head and a worker of this size, without retries."""
    resources = {"head": size, "worker": size, "maxWorkers": 1}
    return LONG | {"resources": resources, "backoffLimit": 0, "startupDeadlineSeconds": DEADLINE}


def used(pods: int) -> Condition:
    return lambda it: it.get("status", {}).get("used", {}).get("count/pods") == str(pods)


def wait_until(namespace: Namespace, pods: int) -> None:
    namespace.wait("v1", "ResourceQuota", "team", used(pods), SEEN_TIMEOUT, f"the quota to count {pods}")


def ready(seen: list[Manifest]) -> bool:
    conditions = [one for it in seen for one in it.get("status", {}).get("conditions", [])]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def quota_beside_another_pod(namespace: Namespace, worker_image: str) -> None:
    """Creates a quota of two pods, and a foreign pod that uses one of them."""
    namespace.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": HARD}},
        pod("other", worker_image, ["sleep", "infinity"]),
    )
    wait_until(namespace, 1)


@pytest.mark.draws_nothing
def test_a_quota_that_is_too_small_fails(namespace: Namespace, worker_image: str) -> None:
    quota_beside_another_pod(namespace, worker_image)
    Sampling.apply(namespace, "large", head_and_worker(_LARGE))
    message = "more than the whole quota: requests.memory 8Gi of 6Gi"
    assert_failure(wait_for_failure(namespace, "large"), "QuotaExceeded", message, "lower")


@pytest.mark.long
def test_a_full_quota_is_waited_for(namespace: Namespace, worker_image: str) -> None:
    core = namespace.cluster.core
    quota_beside_another_pod(namespace, worker_image)
    namespace.apply(pod("another", worker_image, ["sleep", "infinity"]))
    wait_until(namespace, 2)
    fitting = Sampling.apply(namespace, "fitting", head_and_worker(_PART))
    assert phase(fitting.wait(cluster_ready_reason("QuotaExceeded"), "fitting to wait for the quota")) == "Queued"
    core.delete_namespaced_pod("another", namespace.name, grace_period_seconds=0)
    namespace.wait_for_all("v1", "Pod", ready, SEEN_TIMEOUT, "a head", "ray.io/node-type=head")
    assert phase(fitting.wait(cluster_ready_reason("QuotaExceeded"), "fitting to wait for its worker")) == "Queued"
    core.delete_namespaced_pod("other", namespace.name, grace_period_seconds=0)
    status = fitting.wait_for("Running")["status"]
    assert (status["attempt"], status["failedAttempts"]) == (1, 0)
