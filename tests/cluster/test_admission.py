"""Who may refuse a sampling's objects: a LimitRange, a policy, a webhook. Its failure names each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from tests.cluster.disruptions import without_permission
from tests.cluster.failures import assert_failure, cluster_ready_reason, wait_for_failure
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.manifests import ray_cluster, secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import LIGHT, Sampling, assert_nothing_left

SEEN_TIMEOUT = 60.0
# Long enough for what is shown at once to be seen before it ends a sampling.
DEADLINE = 15
POLICIES = "admissionregistration.k8s.io/v1"
CREATED = [
    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
    {"apiGroups": ["ray.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["rayclusters"]},
]
SECRETS = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]
# Half a minute of work.
SHORT_RUN = {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}
NO_RETRY = LIGHT | {"backoffLimit": 0}
_LARGE = {"cpu": "300m", "memory": "3Gi"}

# By name: what is asked for beside NO_RETRY, where it is refused, what to do.
REFUSED: dict[str, tuple[Manifest, str, str]] = {
    "large": (
        {"resources": {"head": _LARGE, "worker": _LARGE, "maxWorkers": 0}},
        "maximum memory usage per Container is 2Gi",
        "a LimitRange or a webhook",
    ),
    "no-pod": (
        {},
        "denied request: only approved pods",
        "change the fields of",
    ),
    "no-cluster": (
        {},
        "The operator cannot create the RayCluster no-cluster-",
        "Ask the cluster's administrator",
    ),
}
# Those of a webhook that does not answer may yet be taken.
WAIT: dict[str, tuple[Manifest, str, str]] = {
    "unasked-pod": ({}, "failed calling webhook", "a webhook rejects the pods"),
    "unasked-cluster": ({}, "failed calling webhook", "an admission webhook does not answer"),
}


def called(pod: str, cluster: str) -> str:
    """Whether it is one of a sampling's pods or its RayCluster, in CEL."""
    of_pod = f"object.metadata.?labels['ray.io/cluster'].orValue('').startsWith('{pod}-')"
    return f"request.kind.kind == 'Pod' ? {of_pod} : object.metadata.name.startsWith('{cluster}-')"


def policy(name: str, namespace: str, created: list[Manifest], validation: Manifest) -> list[Manifest]:
    """A policy of the API server's own, in one namespace."""
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    rule = {"matchConstraints": {"resourceRules": created}, "validations": [validation]}
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    return [
        {"apiVersion": POLICIES, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", rule), ("ValidatingAdmissionPolicyBinding", bound))
    ]


def webhook(name: str, namespace: str) -> Manifest:
    """One that has to be asked for either, in one namespace, and is not there."""
    return {
        "apiVersion": POLICIES,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "policy.example.com",
                "rules": CREATED,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "matchConditions": [{"name": "called", "expression": called("unasked-pod", "unasked-cluster")}],
                "clientConfig": {"service": {"namespace": namespace, "name": "nowhere"}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 1,
            }
        ],
    }


@contextmanager
def there(namespace: Namespace, *manifests: Manifest) -> Iterator[None]:
    """Objects of the whole cluster, for the time of the block."""
    try:
        namespace.apply(*manifests)
        yield
    finally:
        for manifest in manifests:
            resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
            resource.delete(name=manifest["metadata"]["name"])


def wait_until_refused(namespace: Namespace, manifest: Manifest, says: str) -> None:
    """The API server takes a moment to heed a new policy, and tells nobody when it does."""
    resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
    deadline, said = time.monotonic() + SEEN_TIMEOUT, ""
    while says not in said:
        assert time.monotonic() < deadline, f"nothing refuses it: {said}"
        try:
            resource.create(body=manifest, namespace=namespace.name, query_params=[("dryRun", "All")])
        except DynamicApiError as error:
            said = str(error.body)


def wait_until_none_is_created(operator: Operator, namespace: Namespace) -> None:
    """Nor of a role that has changed."""
    deadline = time.monotonic() + SEEN_TIMEOUT
    while "create" in operator.permissions(namespace.name)["rayclusters.ray.io", ""]:
        assert time.monotonic() < deadline, "the operator may still create RayClusters"


@pytest.mark.draws_nothing
def test_what_admission_refuses_ends_at_once_and_what_it_cannot_be_asked_for_waits(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    limits = [{"type": "Container", "max": {"memory": "2Gi"}}]
    namespace.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}}
    )
    says = "request.kind.kind == 'Pod' ? 'only approved pods' : 'no Ray here'"
    neither = {"expression": f"!({called('no-pod', 'no-cluster')})", "messageExpression": says}
    policies = (
        *policy(namespace.name, namespace.name, CREATED, neither),
        webhook(namespace.name, namespace.name),
    )
    with there(namespace, *policies):
        for name, says in (("no-cluster", "no Ray here"), ("unasked-cluster", "failed calling webhook")):
            wait_until_refused(namespace, ray_cluster(f"{name}-0", worker_image), says)
        for name, (asked, *_) in {**REFUSED, **WAIT}.items():
            deadline = {"startupDeadlineSeconds": DEADLINE if name in WAIT else 600}
            Sampling.apply(namespace, name, NO_RETRY | deadline | asked)
        for name in WAIT:
            seen = Sampling(namespace, name).wait(
                cluster_ready_reason("PodRejected"), f"{name} to say it", SEEN_TIMEOUT
            )
            assert seen["status"]["phase"] == "Starting"
        for name, (_, where, what_to_do) in REFUSED.items():
            assert_failure(wait_for_failure(namespace, name), "PodRejected", where, what_to_do)
        for name, (_, where, what_to_do) in WAIT.items():
            status = wait_for_failure(namespace, name)
            assert_failure(status, "PodRejected", where, what_to_do)
            assert f"within {DEADLINE}s of its admission" in status["failure"]["message"]
    assert_nothing_left(namespace)


@pytest.mark.long
def test_what_is_refused_by_now_and_was_made_before_ends_nothing_when_the_operator_starts_again(
    namespace: Namespace, operator: Operator
) -> None:
    sampling = Sampling.apply(namespace, "digits", NO_RETRY | SHORT_RUN)
    sampling.wait_for("Running")
    none = {"expression": "false", "message": "no secrets here"}
    with there(namespace, *policy(f"{namespace.name}-secrets", namespace.name, SECRETS, none)):
        wait_until_refused(namespace, secret("refused", {}), "no secrets here")
        operator.kill()
        assert sampling.wait_until_complete(128)["status"]["attempt"] == 1


@pytest.mark.operator_away
def test_a_right_that_the_operator_lacks_for_a_moment_is_told_and_waited_for(
    namespace: Namespace, operator: Operator
) -> None:
    with without_permission(namespace.cluster, f"{operator.release}-operator", "rayclusters", "create"):
        wait_until_none_is_created(operator, namespace)
        sampling = Sampling.apply(namespace, "digits", NO_RETRY)
        seen = sampling.wait(cluster_ready_reason("PodRejected"), "digits to say what is missing", SEEN_TIMEOUT)
        [ready] = [it for it in seen["status"]["conditions"] if it["type"] == "ClusterReady"]
        assert 'cannot create resource "rayclusters"' in ready["message"]
        assert seen["status"]["phase"] == "Starting"
    assert sampling.wait_until_complete(16)["status"]["attempt"] == 1
