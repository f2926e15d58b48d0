"""What a refusal of the API server means for a sampling. Pure."""

from __future__ import annotations

import re
from http import HTTPStatus

from ddpm_operator.kube.client import ApiError
from ddpm_operator.reconcile.diagnosis import NO_RIGHT, OVER_QUOTA
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind

# What a webhook says, and a ValidatingAdmissionPolicy, whatever status it answers with.
_DENIED = re.compile(r"denied (the )?request")
_NO_KUBERAY = "the cluster knows no RayCluster of ray.io/v1"


def classify_error(error: ApiError, doing: str, kind: str) -> ActionError:
    """The fault that a request which was refused is.

    Args:
        doing: what was tried, to go after "cannot".
        kind: of the object that it was tried with, such as RayCluster.
    """
    found = _kind(error, kind)
    return ActionError(
        found, doing, _NO_KUBERAY if found == ActionErrorKind.KUBERAY_MISSING else error.message or str(error)
    )


def _kind(error: ApiError, kind: str) -> ActionErrorKind:
    message = error.message.lower()
    ray = kind == "RayCluster"
    match error.status:
        case HTTPStatus.FORBIDDEN if OVER_QUOTA.search(message):
            return ActionErrorKind.QUOTA
        case HTTPStatus.FORBIDDEN if "being terminated" in message:
            return ActionErrorKind.TRANSIENT  # the namespace goes, and the sampling with it
        case HTTPStatus.INTERNAL_SERVER_ERROR if "failed calling webhook" in message:
            return ActionErrorKind.WEBHOOK_AWAY
        case HTTPStatus.FORBIDDEN if NO_RIGHT.search(message):
            return ActionErrorKind.NO_RIGHT
        case HTTPStatus.FORBIDDEN:
            return ActionErrorKind.FORBIDDEN
        case _ if _DENIED.search(message):
            return ActionErrorKind.FORBIDDEN
        case HTTPStatus.NOT_FOUND if ray and error.kind != "namespaces":
            return ActionErrorKind.KUBERAY_MISSING
        case HTTPStatus.NOT_FOUND:
            return ActionErrorKind.NOT_FOUND
        case HTTPStatus.BAD_REQUEST if ray and "unknown field" in message:
            return ActionErrorKind.KUBERAY_TOO_OLD
        case HTTPStatus.BAD_REQUEST | HTTPStatus.UNPROCESSABLE_ENTITY:
            return ActionErrorKind.INVALID
        case _:
            return ActionErrorKind.TRANSIENT
