"""Diagnosis of pods: the reports of Kubernetes become a FailureReason, certain or not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ddpm_operator.manifests.tokens import attempt_tokens
from ddpm_operator.reconcile.diagnosis import pod_problem
from ddpm_operator.reconcile.observed import Container, ObservedCluster, ObservedPod, Terminated, Waiting
from tests.fakes.world import START

TOKENS = attempt_tokens(b"k" * 32, "uid", 1)
CLUSTER = ObservedCluster("digits-1", "c1", 1, START)
IN_GRACE, AFTER_GRACE = START + timedelta(seconds=5), START + timedelta(seconds=16)


def waiting(reason: str, message: str = "") -> ObservedPod:
    container = Container("ray-head", Waiting(reason, message))
    return ObservedPod("digits-1-head", "p1", "digits-1", 1, "head", "Pending", containers=(container,))


def unschedulable(message: str) -> ObservedPod:
    return ObservedPod("digits-1-head", "p1", "digits-1", 1, "head", "Pending", unschedulable=message)


def with_replica_failure(message: str) -> ObservedCluster:
    return ObservedCluster("digits-1", "c1", 1, START, replica_failure=message)


FORBIDDEN = 'failed to create pod: pods "x" is forbidden: '


def restarting(reason: str, code: int, message: str = "") -> ObservedPod:
    ended = Terminated(reason, code, message)
    container = Container("ray-worker", Waiting("CrashLoopBackOff", "back-off 10s"), restarts=2, last_termination=ended)
    return ObservedPod("digits-1-worker", "p2", "digits-1", 1, "worker", "Running", containers=(container,))


PODS = [
    (waiting("ContainerCreating"), None, None),
    (waiting("ImagePullBackOff", 'Back-off pulling image "x:2"'), "ImagePullFailed", None),
    (waiting("ErrImagePull", "not found"), "ImagePullFailed", None),
    (waiting("InvalidImageName"), "ImagePullFailed", 0),
    (waiting("CreateContainerConfigError", f'secret "{TOKENS.secret_name("digits-1")}" not found'), None, None),
    (waiting("CreateContainerConfigError", 'secret "s3" not found'), "ReferenceNotFound", 15),
    (waiting("CreateContainerConfigError", 'secret "digits-1-s3" not found'), "ReferenceNotFound", 15),
    (waiting("CreateContainerConfigError", "failed to sync secret cache"), "PodRejected", None),
    (waiting("CreateContainerError", "no such device"), "PodRejected", None),
    (unschedulable("0/1 nodes are available: 1 Insufficient memory."), "Unschedulable", None),
    (restarting("OOMKilled", 137), "OutOfMemory", None),
    (restarting("Error", 127), "WorkerLost", None),
    (unschedulable('persistentvolumeclaim "models" not found'), "ReferenceNotFound", 15),
]
CLUSTERS = [
    (
        with_replica_failure(FORBIDDEN + "exceeded quota: team, requested: cpu=2, used: cpu=8, limited: cpu=8"),
        "QuotaExceeded",
        None,
    ),
    (with_replica_failure(FORBIDDEN + 'violates PodSecurity "restricted:latest"'), "PodRejected", 0),
    (with_replica_failure(FORBIDDEN + "maximum memory usage per Container is 1Gi, but limit is 4Gi"), "PodRejected", 0),
    (with_replica_failure('admission webhook "policy" denied the request: no latest tags'), "PodRejected", 0),
    (
        with_replica_failure(FORBIDDEN + 'error looking up service account: serviceaccount "x" not found'),
        "ReferenceNotFound",
        15,
    ),
    (
        with_replica_failure(FORBIDDEN + 'User "kuberay" cannot create resource "pods" in API group ""'),
        "PodRejected",
        None,
    ),
    (with_replica_failure("Internal error occurred: failed calling webhook: timeout"), "PodRejected", None),
]


@pytest.mark.parametrize(("pod", "reason", "certain_after"), PODS)
def test_pod_that_does_not_start_gets_a_reason(pod: ObservedPod, reason: str | None, certain_after: int | None) -> None:
    assert_problem(CLUSTER, (pod,), reason, certain_after)


@pytest.mark.parametrize(("cluster", "reason", "certain_after"), CLUSTERS)
def test_pod_that_is_not_created_gets_a_reason(
    cluster: ObservedCluster, reason: str, certain_after: int | None
) -> None:
    assert_problem(cluster, (), reason, certain_after)


def assert_problem(
    cluster: ObservedCluster, pods: tuple[ObservedPod, ...], reason: str | None, certain_after: int | None
) -> None:
    """Asserts the reason, and the number of seconds after which it is certain; None for never."""
    early, later = (pod_problem(cluster, pods, START, now) for now in (IN_GRACE, AFTER_GRACE))
    assert (early and early.reason, later and later.reason) == (reason, reason)
    if early and later:
        assert (early.certain, later.certain) == (certain_after == 0, certain_after is not None)
        assert early.message.endswith(".")
        assert not early.message.endswith("..")


def test_certain_problems_come_first() -> None:
    pods = (unschedulable("0/1 nodes are available."), waiting("InvalidImageName"))
    found = pod_problem(CLUSTER, pods, START, IN_GRACE)
    assert found
    assert found.reason == "ImagePullFailed"


def test_message_names_the_pod_and_quotes_kubernetes() -> None:
    found = pod_problem(CLUSTER, (waiting("ErrImagePull", "x:2: not found"),), START, IN_GRACE)
    assert found
    assert found.message == "The head pod digits-1-head cannot get its image: x:2: not found."


def test_restarting_container_names_its_last_error() -> None:
    found = pod_problem(CLUSTER, (restarting("Error", 127, "loading\nray: command not found\n"),), START, IN_GRACE)
    assert found
    assert found.message == (
        "The worker pod digits-1-worker has terminated and waits for its restart: "
        "Error, exit code 127: ray: command not found."
    )
