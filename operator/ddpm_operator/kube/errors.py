"""Classifies error responses of the API server, by status and message, for `reconcile`. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus

from ddpm_operator.kube.client import ApiError
from ddpm_operator.reconcile.diagnosis import RBAC_DENIED
from ddpm_operator.reconcile.kuberay import MISSING_CRD
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from ddpm_operator.reconcile.quota import OVER_QUOTA

# The wording of webhooks and of ValidatingAdmissionPolicies. Their HTTP status varies.
_DENIED = re.compile(r"denied (the )?request")


def classify_error(error: ApiError, attempted: str, kind: str) -> ActionError:
    """Returns the ActionError that an API error stands for.

    Args:
        attempted: what was attempted, as a phrase that follows "cannot".
        kind: kind of the object in the request, such as RayCluster.
    """
    error_kind = _error_kind(error, is_ray_cluster=kind == "RayCluster")
    message = MISSING_CRD if error_kind == ActionErrorKind.KUBERAY_MISSING else error.message or str(error)
    return ActionError(error_kind, attempted, message)


def _error_kind(error: ApiError, *, is_ray_cluster: bool) -> ActionErrorKind:
    message = error.message.lower()
    match error.status:
        case HTTPStatus.FORBIDDEN if OVER_QUOTA.search(message):
            return ActionErrorKind.QUOTA
        case HTTPStatus.FORBIDDEN if "being terminated" in message:
            return ActionErrorKind.TRANSIENT  # the namespace is being deleted, and the sampling with it
        case HTTPStatus.INTERNAL_SERVER_ERROR if "failed calling webhook" in message:
            return ActionErrorKind.WEBHOOK_UNAVAILABLE
        case HTTPStatus.FORBIDDEN if RBAC_DENIED.search(message):
            return ActionErrorKind.OPERATOR_FORBIDDEN
        case HTTPStatus.FORBIDDEN:
            return ActionErrorKind.FORBIDDEN
        case _ if _DENIED.search(message):
            return ActionErrorKind.FORBIDDEN
        case HTTPStatus.NOT_FOUND if is_ray_cluster and error.resource != "namespaces":
            return ActionErrorKind.KUBERAY_MISSING
        case HTTPStatus.NOT_FOUND:
            return ActionErrorKind.NOT_FOUND
        case HTTPStatus.BAD_REQUEST if is_ray_cluster and "unknown field" in message:
            return ActionErrorKind.KUBERAY_TOO_OLD
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            return ActionErrorKind.INVALID
        case _:
            return ActionErrorKind.TRANSIENT
