"""Admission that rejects a sampling's objects: LimitRange, policy, webhook. The failure names each of them."""

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
# Long enough to observe the waiting state before the deadline fails the sampling.
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

# Name -> fields beside NO_RETRY, and parts of the failure's message and hint.
REJECTED: dict[str, tuple[Manifest, str, str]] = {
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
# The webhook that does not respond may do so later.
WAIT: dict[str, tuple[Manifest, str, str]] = {
    "webhook-pod": ({}, "failed calling webhook", "a webhook rejects the pods"),
    "webhook-cluster": ({}, "failed calling webhook", "an admission webhook does not answer"),
}


def selects(pod: str, cluster: str) -> str:
    """Returns a CEL expression that selects the pods of one sampling and the RayCluster of another."""
    of_pod = f"object.metadata.?labels['ray.io/cluster'].orValue('').startsWith('{pod}-')"
    return f"request.kind.kind == 'Pod' ? {of_pod} : object.metadata.name.startsWith('{cluster}-')"


def policy(name: str, namespace: str, created: list[Manifest], validation: Manifest) -> list[Manifest]:
    """Returns a ValidatingAdmissionPolicy for one namespace."""
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    rule = {"matchConstraints": {"resourceRules": created}, "validations": [validation]}
    bound = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    return [
        {"apiVersion": POLICIES, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, spec in (("ValidatingAdmissionPolicy", rule), ("ValidatingAdmissionPolicyBinding", bound))
    ]


def webhook(name: str, namespace: str) -> Manifest:
    """Returns a webhook configuration for one namespace, whose Service does not exist."""
    return {
        "apiVersion": POLICIES,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": "policy.example.com",
                "rules": CREATED,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "matchConditions": [{"name": "selected", "expression": selects("webhook-pod", "webhook-cluster")}],
                "clientConfig": {"service": {"namespace": namespace, "name": "missing"}},
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 1,
            }
        ],
    }


@contextmanager
def applied(namespace: Namespace, *manifests: Manifest) -> Iterator[None]:
    """Applies cluster-scoped objects during the block."""
    try:
        namespace.apply(*manifests)
        yield
    finally:
        for manifest in manifests:
            resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
            resource.delete(name=manifest["metadata"]["name"])


def wait_until_rejected(namespace: Namespace, manifest: Manifest, message: str) -> None:
    """Polls, because the API server enforces a new policy with a delay."""
    resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
    deadline, error_body = time.monotonic() + SEEN_TIMEOUT, ""
    while message not in error_body:
        assert time.monotonic() < deadline, f"not rejected: {error_body}"
        try:
            resource.create(body=manifest, namespace=namespace.name, query_params=[("dryRun", "All")])
        except DynamicApiError as error:
            error_body = str(error.body)


def wait_until_creation_is_forbidden(operator: Operator, namespace: Namespace) -> None:
    """Polls, because the API server applies a changed role with a delay."""
    deadline = time.monotonic() + SEEN_TIMEOUT
    while "create" in operator.permissions(namespace.name)["rayclusters.ray.io", ""]:
        assert time.monotonic() < deadline, "the operator may still create RayClusters"


@pytest.mark.draws_nothing
def test_admission_rejections_fail_and_missing_webhooks_wait(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    limits = [{"type": "Container", "max": {"memory": "2Gi"}}]
    namespace.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": limits}}
    )
    messages = "request.kind.kind == 'Pod' ? 'only approved pods' : 'no Ray here'"
    validation = {"expression": f"!({selects('no-pod', 'no-cluster')})", "messageExpression": messages}
    policies = (
        *policy(namespace.name, namespace.name, CREATED, validation),
        webhook(namespace.name, namespace.name),
    )
    with applied(namespace, *policies):
        for name, message in (("no-cluster", "no Ray here"), ("webhook-cluster", "failed calling webhook")):
            wait_until_rejected(namespace, ray_cluster(f"{name}-0", worker_image), message)
        for name, (fields, *_) in {**REJECTED, **WAIT}.items():
            deadline = {"startupDeadlineSeconds": DEADLINE if name in WAIT else 600}
            Sampling.apply(namespace, name, NO_RETRY | deadline | fields)
        for name in WAIT:
            seen = Sampling(namespace, name).wait(
                cluster_ready_reason("PodRejected"), f"{name} to report it", SEEN_TIMEOUT
            )
            assert seen["status"]["phase"] == "Starting"
        for name, (_, message, hint) in REJECTED.items():
            assert_failure(wait_for_failure(namespace, name), "PodRejected", message, hint)
        for name, (_, message, hint) in WAIT.items():
            status = wait_for_failure(namespace, name)
            assert_failure(status, "PodRejected", message, hint)
            assert f"within {DEADLINE}s of its admission" in status["failure"]["message"]
    assert_nothing_left(namespace)


@pytest.mark.long
def test_existing_objects_survive_a_policy_that_rejects_them(namespace: Namespace, operator: Operator) -> None:
    sampling = Sampling.apply(namespace, "digits", NO_RETRY | SHORT_RUN)
    sampling.wait_for("Running")
    none = {"expression": "false", "message": "no secrets here"}
    with applied(namespace, *policy(f"{namespace.name}-secrets", namespace.name, SECRETS, none)):
        wait_until_rejected(namespace, secret("refused", {}), "no secrets here")
        operator.kill()
        assert sampling.wait_until_complete(128)["status"]["attempt"] == 1


@pytest.mark.operator_away
def test_a_missing_permission_is_reported_and_waited_for(namespace: Namespace, operator: Operator) -> None:
    with without_permission(namespace.cluster, f"{operator.release}-operator", "rayclusters", "create"):
        wait_until_creation_is_forbidden(operator, namespace)
        sampling = Sampling.apply(namespace, "digits", NO_RETRY)
        seen = sampling.wait(
            cluster_ready_reason("PodRejected"), "digits to report the missing permission", SEEN_TIMEOUT
        )
        [ready] = [it for it in seen["status"]["conditions"] if it["type"] == "ClusterReady"]
        assert 'cannot create resource "rayclusters"' in ready["message"]
        assert seen["status"]["phase"] == "Starting"
    assert sampling.wait_until_complete(16)["status"]["attempt"] == 1
