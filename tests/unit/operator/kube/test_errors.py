"""The classification of error responses, with messages as the API server words them."""

from __future__ import annotations

import pytest

from ddpm_operator.kube.client import ApiError
from ddpm_operator.kube.errors import classify_error
from ddpm_operator.reconcile.observed import ActionErrorKind

QUOTA = 'pods "a" is forbidden: exceeded quota: small, requested: count/rayclusters.ray.io=1, used: 1, limited: 1'
QUOTA_NOT_SYNCED = 'secrets "a" is forbidden: status unknown for quota: no-secrets, resources: count/secrets'
TERMINATING = 'secrets "a" is forbidden: unable to create new content in namespace x because it is being terminated'
POLICY = "rayclusters.ray.io \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no Ray"
WEBHOOK = 'admission webhook "policy.example.com" denied the request: no Ray here'
WEBHOOK_UNAVAILABLE = (
    'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: Post '
    '"https://policy.default.svc:443/?timeout=10s": service "policy" not found'
)
NO_RIGHT = (
    'rayclusters.ray.io is forbidden: User "system:serviceaccount:ddpm-ray:ddpm-operator" cannot create resource '
    '"rayclusters" in API group "ray.io" in the namespace "x"'
)
POD_SECURITY = 'pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
TOO_OLD = 'RayCluster in version "v1" cannot be handled as a RayCluster: strict decoding error: unknown field "spec.a"'


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [
        (ApiError(0, "Unreachable", "refused"), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(401, "Unauthorized", "Unauthorized"), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(429, "TooManyRequests", "later"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(500, "InternalError", "etcd"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(503, "ServiceUnavailable", "later"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(500, "InternalError", WEBHOOK_UNAVAILABLE), "RayCluster", ActionErrorKind.WEBHOOK_UNAVAILABLE),
        (ApiError(422, "Invalid", POLICY), "RayCluster", ActionErrorKind.FORBIDDEN),
        (ApiError(400, "BadRequest", WEBHOOK), "Secret", ActionErrorKind.FORBIDDEN),
        (ApiError(403, "Forbidden", QUOTA), "RayCluster", ActionErrorKind.QUOTA),
        (ApiError(403, "Forbidden", QUOTA_NOT_SYNCED), "Secret", ActionErrorKind.QUOTA),
        (ApiError(403, "Forbidden", TERMINATING), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(403, "Forbidden", NO_RIGHT), "RayCluster", ActionErrorKind.OPERATOR_FORBIDDEN),
        (ApiError(403, "Forbidden", POD_SECURITY), "Secret", ActionErrorKind.FORBIDDEN),
        (ApiError(404, "", "404 page not found"), "RayCluster", ActionErrorKind.KUBERAY_MISSING),
        (ApiError(404, "NotFound", "the server could not find it"), "RayCluster", ActionErrorKind.KUBERAY_MISSING),
        (
            ApiError(404, "NotFound", 'namespaces "x" not found', "namespaces"),
            "RayCluster",
            ActionErrorKind.NOT_FOUND,
        ),
        (ApiError(400, "BadRequest", TOO_OLD), "RayCluster", ActionErrorKind.KUBERAY_TOO_OLD),
        (ApiError(400, "BadRequest", TOO_OLD), "NetworkPolicy", ActionErrorKind.INVALID),
        (ApiError(422, "Invalid", "spec.resources: too small"), "PersistentVolumeClaim", ActionErrorKind.INVALID),
    ],
)
def test_errors_are_classified(error: ApiError, kind: str, expected: ActionErrorKind) -> None:
    assert classify_error(error, "create it", kind).kind == expected


def test_an_error_names_the_action_and_the_message() -> None:
    error = classify_error(ApiError(403, "Forbidden", QUOTA), "create the RayCluster a-1", "RayCluster")
    assert (error.attempted_action, error.message) == ("create the RayCluster a-1", QUOTA)


def test_a_missing_crd_is_named() -> None:
    error = classify_error(ApiError(404, "", "404 page not found"), "create the RayCluster a-1", "RayCluster")
    assert "RayCluster of ray.io/v1" in error.message
