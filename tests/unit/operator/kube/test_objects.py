"""From the API server's objects to facts: what KubeRay and the kubelet really write, and what they leave out."""

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
OF_HEAD = {"ray.io/cluster": "digits-1a2b3c4d-2", "ray.io/node-type": "head"}


def at(second: int) -> datetime:
    return datetime(2026, 11, 23, 16, 0, second, tzinfo=UTC)


def metadata(name: str, labels: dict[str, str] = LABELS, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "name": name,
        "namespace": "research",
        "uid": f"uid-of-{name}",
        "resourceVersion": "4711",
        "labels": labels,
        "creationTimestamp": "2026-11-23T16:00:01Z",
        **more,
    }


def condition(kind: str, status: str, second: int = 0, **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, "lastTransitionTime": f"2026-11-23T16:00:{second:02}Z", **more}


def cluster(*conditions: dict[str, str], **spec: Any) -> ObservedCluster:  # noqa: ANN401
    document = {"metadata": metadata("digits-1a2b3c4d-2"), "spec": spec, "status": {"conditions": conditions}}
    sight = RayCluster.model_validate(document).sight()
    assert sight
    assert (sight.of, sight.uid, sight.version) == (KEY, "uid-of-digits-1a2b3c4d-2", 4711)
    return sight.fact


def pod(**status: Any) -> ObservedPod:  # noqa: ANN401
    labels = LABELS | OF_HEAD
    sight = RayPod.model_validate({"metadata": metadata("head", labels), "status": status}).sight()
    assert sight
    assert sight.of == KEY
    return sight.fact


def test_a_cluster_that_kuberay_has_not_looked_at_yet() -> None:
    sight = RayCluster.model_validate({"metadata": metadata("digits-1a2b3c4d-2"), "spec": {}}).sight()
    assert sight
    assert sight.fact == ObservedCluster("digits-1a2b3c4d-2", "uid-of-digits-1a2b3c4d-2", 2, created=at(1))


def test_a_cluster_with_all_its_pods() -> None:
    found = cluster(condition("HeadPodReady", "True"), condition("RayClusterProvisioned", "True"))
    assert (found.suspended, found.replica_failure) == (False, None)


@pytest.mark.parametrize(
    ("observed", "heeded"), [({}, False), ({"observedGeneration": 1}, False), ({"observedGeneration": 2}, True)]
)
def test_kuberay_has_acted_on_the_spec_that_it_has_observed(observed: dict[str, int], heeded: bool) -> None:
    document = {"metadata": metadata("digits-1a2b3c4d-2", generation=2), "status": observed}
    sight = RayCluster.model_validate(document).sight()
    assert sight
    assert sight.fact.heeded == heeded


def test_a_cluster_whose_pods_may_not_be_made_says_why() -> None:
    assert cluster(condition("ReplicaFailure", "True", message="exceeded quota")).replica_failure == "exceeded quota"
    assert cluster(condition("ReplicaFailure", "False", message="exceeded quota")).replica_failure is None


def test_a_cluster_in_a_queue() -> None:
    assert cluster(condition("RayClusterSuspended", "True"), suspend=True).suspended
    assert cluster(condition("RayClusterSuspended", "True"), suspend=False).suspended
    assert cluster(condition("RayClusterSuspending", "True"), suspend=False).suspended
    assert not cluster(condition("RayClusterSuspended", "False"), suspend=False).suspended


def test_a_cluster_that_was_let_in_again_says_since_when() -> None:
    back = condition("RayClusterSuspended", "False") | {"lastTransitionTime": "2026-11-23T16:00:02Z"}
    assert cluster(back).resumed == at(2)
    assert cluster(condition("RayClusterSuspended", "True")).resumed is None


@pytest.mark.parametrize("lacking", ["ddpm-ray.io/sampling", "ddpm-ray.io/sampling-uid"])
def test_what_belongs_to_no_sampling_is_nobodys(lacking: str) -> None:
    labels = {name: value for name, value in (LABELS | OF_HEAD).items() if name != lacking}
    assert RayCluster.model_validate({"metadata": metadata("a", labels)}).sight() is None
    assert RayPod.model_validate({"metadata": metadata("a", labels)}).sight() is None
    assert RayPod.model_validate({"metadata": metadata("a", LABELS)}).sight() is None


@pytest.mark.parametrize("number", ["", "two", "-1", "9" * 100])
def test_an_attempt_that_is_no_number_is_none(number: str) -> None:
    labels = LABELS | {"ddpm-ray.io/attempt": number}
    sight = RayCluster.model_validate({"metadata": metadata("a", labels)}).sight()
    assert sight
    assert sight.fact.attempt is None


def test_a_pod_that_nobody_has_looked_at_yet() -> None:
    assert pod() == ObservedPod("head", "uid-of-head", "digits-1a2b3c4d-2", 2, "head", "Pending")


def test_a_pod_knows_the_raycluster_that_owns_it() -> None:
    owners = [{"kind": "RayCluster", "name": "digits-1", "uid": "uid-of-cluster", "controller": True}]
    document = {"metadata": metadata("head", LABELS | OF_HEAD, ownerReferences=owners)}
    sight = RayPod.model_validate(document).sight()
    assert sight
    assert sight.fact.owner == "uid-of-cluster"


def test_a_pod_that_fits_no_node_says_so() -> None:
    scheduled = condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes are available")
    found = pod(phase="Pending", conditions=[scheduled])
    assert (found.unschedulable, found.scheduled) == ("0/1 nodes are available", None)


def test_a_pod_that_others_have_ended_says_why() -> None:
    preempted = {"reason": "PreemptionByScheduler", "message": "preempting to accommodate a pod"}
    found = pod(phase="Failed", conditions=[condition("DisruptionTarget", "True", **preempted)])
    assert found.disruption == "PreemptionByScheduler: preempting to accommodate a pod"
    spared = pod(phase="Running", conditions=[condition("DisruptionTarget", "False", **preempted)])
    assert spared.disruption == ""


def test_a_pod_that_runs() -> None:
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


def test_containers_that_wait_or_have_ended_say_why() -> None:
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
        Container("b", Waiting("CrashLoopBackOff"), restarts=3, last_end=killed),
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


def test_a_claim_of_a_former_sampling_that_owned_it_is_as_good_as_gone() -> None:
    assert claim(ownerReferences=owned_by("uid-of-another")).goes_before(KEY)
    assert claim(deletionTimestamp="2026-11-23T16:00:01Z").goes_before(KEY)


def test_a_claim_that_stays_is_taken_up() -> None:
    assert not claim().goes_before(KEY)
    assert not claim(ownerReferences=owned_by(KEY.uid)).goes_before(KEY)
    assert claim().fact().access_modes == ("ReadWriteOnce",)
