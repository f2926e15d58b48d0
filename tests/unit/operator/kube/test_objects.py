"""Conversion of Kubernetes objects, with the fields that KubeRay and the kubelet write and omit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ddpm_operator.kube.objects import ObjectKey, PersistentVolumeClaim, RayCluster, RayPod
from ddpm_operator.reconcile.observed import Container, ObservedCluster, ObservedPod, Running, Terminated, Waiting

KEY = ObjectKey("research", "digits", "uid-of-digits")
LABELS = {
    "app.kubernetes.io/managed-by": "ddpm-operator",
    "ddpm-ray.io/sampling": "digits",
    "ddpm-ray.io/sampling-uid": "uid-of-digits",
    "ddpm-ray.io/attempt": "2",
}
HEAD_LABELS = {"ray.io/cluster": "digits-1a2b3c4d-2", "ray.io/node-type": "head"}


def at(second: int) -> datetime:
    return datetime(2026, 11, 23, 16, 0, second, tzinfo=UTC)


def metadata(name: str, labels: dict[str, str] = LABELS, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "name": name,
        "namespace": "research",
        "uid": f"uid-of-{name}",
        "resourceVersion": "4711",
        "labels": labels,
        "creationTimestamp": "2026-11-23T16:00:01Z",
        **fields,
    }


def condition(kind: str, status: str, second: int = 0, **fields: str) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": f"2026-11-23T16:00:{second:02}Z", **fields}


def cluster(*conditions: dict[str, str], **spec: Any) -> ObservedCluster:  # noqa: ANN401
    document = {"metadata": metadata("digits-1a2b3c4d-2"), "spec": spec, "status": {"conditions": conditions}}
    versioned = RayCluster.model_validate(document).versioned()
    assert versioned
    assert (versioned.owner, versioned.uid, versioned.version) == (KEY, "uid-of-digits-1a2b3c4d-2", 4711)
    return versioned.observed


def pod(**status: Any) -> ObservedPod:  # noqa: ANN401
    labels = LABELS | HEAD_LABELS
    versioned = RayPod.model_validate({"metadata": metadata("head", labels), "status": status}).versioned()
    assert versioned
    assert versioned.owner == KEY
    return versioned.observed


def test_a_cluster_without_a_status() -> None:
    versioned = RayCluster.model_validate({"metadata": metadata("digits-1a2b3c4d-2"), "spec": {}}).versioned()
    assert versioned
    assert versioned.observed == ObservedCluster("digits-1a2b3c4d-2", "uid-of-digits-1a2b3c4d-2", 2, created=at(1))


def test_a_provisioned_cluster() -> None:
    found = cluster(condition("HeadPodReady", "True"), condition("RayClusterProvisioned", "True"))
    assert (found.suspended, found.replica_failure) == (False, None)


@pytest.mark.parametrize(
    ("observed", "seen"), [({}, False), ({"observedGeneration": 1}, False), ({"observedGeneration": 2}, True)]
)
def test_kuberay_has_seen_the_spec_of_its_observed_generation(observed: dict[str, int], seen: bool) -> None:
    document = {"metadata": metadata("digits-1a2b3c4d-2", generation=2), "status": observed}
    versioned = RayCluster.model_validate(document).versioned()
    assert versioned
    assert versioned.observed.seen_by_kuberay == seen


def test_replica_failure_message() -> None:
    assert cluster(condition("ReplicaFailure", "True", message="exceeded quota")).replica_failure == "exceeded quota"
    assert cluster(condition("ReplicaFailure", "False", message="exceeded quota")).replica_failure is None


def test_a_suspended_cluster() -> None:
    assert cluster(condition("RayClusterSuspended", "True"), suspend=True).suspended
    assert cluster(condition("RayClusterSuspended", "True"), suspend=False).suspended
    assert cluster(condition("RayClusterSuspending", "True"), suspend=False).suspended
    assert not cluster(condition("RayClusterSuspended", "False"), suspend=False).suspended


def test_a_resumed_cluster_has_the_time() -> None:
    back = condition("RayClusterSuspended", "False") | {"lastTransitionTime": "2026-11-23T16:00:02Z"}
    assert cluster(back).resumed_at == at(2)
    assert cluster(condition("RayClusterSuspended", "True")).resumed_at is None


@pytest.mark.parametrize("missing", ["ddpm-ray.io/sampling", "ddpm-ray.io/sampling-uid"])
def test_objects_without_sampling_labels_are_ignored(missing: str) -> None:
    labels = {name: value for name, value in (LABELS | HEAD_LABELS).items() if name != missing}
    assert RayCluster.model_validate({"metadata": metadata("a", labels)}).versioned() is None
    assert RayPod.model_validate({"metadata": metadata("a", labels)}).versioned() is None
    assert RayPod.model_validate({"metadata": metadata("a", LABELS)}).versioned() is None


@pytest.mark.parametrize("number", ["", "two", "-1", "9" * 100])
def test_an_invalid_attempt_label_is_none(number: str) -> None:
    labels = LABELS | {"ddpm-ray.io/attempt": number}
    versioned = RayCluster.model_validate({"metadata": metadata("a", labels)}).versioned()
    assert versioned
    assert versioned.observed.attempt is None


def test_a_pod_without_a_status() -> None:
    assert pod() == ObservedPod("head", "uid-of-head", "digits-1a2b3c4d-2", 2, "head", "Pending")


def test_a_pod_has_the_uid_of_its_cluster() -> None:
    owners = [{"kind": "RayCluster", "name": "digits-1", "uid": "uid-of-cluster", "controller": True}]
    document = {"metadata": metadata("head", LABELS | HEAD_LABELS, ownerReferences=owners)}
    versioned = RayPod.model_validate(document).versioned()
    assert versioned
    assert versioned.observed.owner == "uid-of-cluster"


def test_an_unschedulable_pod_has_the_message() -> None:
    scheduled = condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes are available")
    found = pod(phase="Pending", conditions=[scheduled])
    assert (found.unschedulable, found.scheduled) == ("0/1 nodes are available", None)


def test_a_disrupted_pod_has_the_reason() -> None:
    preempted = {"reason": "PreemptionByScheduler", "message": "preempting to accommodate a pod"}
    found = pod(phase="Failed", conditions=[condition("DisruptionTarget", "True", **preempted)])
    assert found.disruption == "PreemptionByScheduler: preempting to accommodate a pod"
    undisturbed = pod(phase="Running", conditions=[condition("DisruptionTarget", "False", **preempted)])
    assert undisturbed.disruption == ""


def test_a_running_pod() -> None:
    found = pod(
        phase="Running",
        podIP="10.88.0.7",
        conditions=[condition("PodScheduled", "True", 2), condition("Ready", "True", 9)],
        containerStatuses=[
            {
                "name": "ray-head",
                "imageID": "docker.io/library/ddpm-ray-worker@sha256:abc",
                "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-23T16:00:03Z"}},
                "lastState": {},
            }
        ],
    )
    assert (found.phase, found.ready, found.ip, found.scheduled) == ("Running", True, "10.88.0.7", at(2))
    image = "docker.io/library/ddpm-ray-worker@sha256:abc"
    assert found.containers == (Container("ray-head", Running(at(3)), image),)


def test_waiting_and_terminated_containers_have_reasons() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    found = pod(
        phase="Failed",
        reason="Evicted",
        message="the node was low on memory",
        initContainerStatuses=[{"name": "wait", "state": ended, "lastState": {}, "restartCount": 0}],
        containerStatuses=[
            {"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
            {
                "name": "b",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": ended,
                "restartCount": 3,
            },
            {"name": "c"},
        ],
    )
    killed = Terminated("OOMKilled", 137)
    assert (found.reason, found.message) == ("Evicted", "the node was low on memory")
    assert found.containers == (
        Container("wait", killed),
        Container("a", Waiting("ImagePullBackOff", "no such image")),
        Container("b", Waiting("CrashLoopBackOff"), restarts=3, last_termination=killed),
        Container("c", Waiting("")),
    )


def claim(**of_metadata: Any) -> PersistentVolumeClaim:  # noqa: ANN401
    return PersistentVolumeClaim.model_validate(
        {
            "metadata": metadata("digits-output", **of_metadata),
            "spec": {"accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"},
        }
    )


def owned_by(uid: str) -> list[dict[str, str]]:
    return [{"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "name": "digits", "uid": uid}]


def test_a_claim_of_an_earlier_sampling_is_stale() -> None:
    assert claim(ownerReferences=owned_by("uid-of-another")).is_stale_for(KEY)
    assert claim(deletionTimestamp="2026-11-23T16:00:01Z").is_stale_for(KEY)


def test_a_claim_without_another_owner_is_not_stale() -> None:
    assert not claim().is_stale_for(KEY)
    assert not claim(ownerReferences=owned_by(KEY.uid)).is_stale_for(KEY)
    assert claim().observed().access_modes == ("ReadWriteOnce",)
