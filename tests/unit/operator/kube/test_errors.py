"""What a refusal of the API server means: the very sentences that it says."""

from __future__ import annotations

import pytest

from ddpm_operator.kube.client import ApiError
from ddpm_operator.kube.errors import classify_error
from ddpm_operator.reconcile.observed import ActionErrorKind

QUOTA = 'pods "a" is forbidden: exceeded quota: small, requested: count/rayclusters.ray.io=1, used: 1, limited: 1'
NEW_QUOTA = 'secrets "a" is forbidden: status unknown for quota: no-secrets, resources: count/secrets'
TERMINATING = 'secrets "a" is forbidden: unable to create new content in namespace x because it is being terminated'
POLICY = "rayclusters.ray.io \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no Ray"
WEBHOOK = 'admission webhook "policy.example.com" denied the request: no Ray here'
NO_WEBHOOK = (
    'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: Post '
    '"https://policy.default.svc:443/?timeout=10s": service "policy" not found'
)
NO_RIGHT = (
    'rayclusters.ray.io is forbidden: User "system:serviceaccount:ddpm-ray:ddpm-operator" cannot create resource '
    '"rayclusters" in API group "ray.io" in the namespace "x"'
)
LEVEL = 'pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
TOO_OLD = 'RayCluster in version "v1" cannot be handled as a RayCluster: strict decoding error: unknown field "spec.a"'


@pytest.mark.parametrize(
    ("error", "kind", "fault"),
    [
        (ApiError(0, "Unreachable", "refused"), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(401, "Unauthorized", "Unauthorized"), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(429, "TooManyRequests", "later"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(500, "InternalError", "etcd"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(503, "ServiceUnavailable", "later"), "RayCluster", ActionErrorKind.TRANSIENT),
        (ApiError(500, "InternalError", NO_WEBHOOK), "RayCluster", ActionErrorKind.WEBHOOK_AWAY),
        (ApiError(422, "Invalid", POLICY), "RayCluster", ActionErrorKind.FORBIDDEN),
        (ApiError(400, "BadRequest", WEBHOOK), "Secret", ActionErrorKind.FORBIDDEN),
        (ApiError(403, "Forbidden", QUOTA), "RayCluster", ActionErrorKind.QUOTA),
        (ApiError(403, "Forbidden", NEW_QUOTA), "Secret", ActionErrorKind.QUOTA),
        (ApiError(403, "Forbidden", TERMINATING), "Secret", ActionErrorKind.TRANSIENT),
        (ApiError(403, "Forbidden", NO_RIGHT), "RayCluster", ActionErrorKind.NO_RIGHT),
        (ApiError(403, "Forbidden", LEVEL), "Secret", ActionErrorKind.FORBIDDEN),
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
def test_each_refusal_has_its_meaning(error: ApiError, kind: str, fault: ActionErrorKind) -> None:
    assert classify_error(error, "create it", kind).kind == fault


def test_a_fault_says_what_was_tried_and_what_the_api_server_said() -> None:
    fault = classify_error(ApiError(403, "Forbidden", QUOTA), "create the RayCluster a-1", "RayCluster")
    assert (fault.doing, fault.message) == ("create the RayCluster a-1", QUOTA)


def test_a_missing_kuberay_is_called_so() -> None:
    fault = classify_error(ApiError(404, "", "404 page not found"), "create the RayCluster a-1", "RayCluster")
    assert "RayCluster of ray.io/v1" in fault.message
