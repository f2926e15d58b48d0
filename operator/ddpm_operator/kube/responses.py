"""Headers of requests to the Kubernetes API, and parsing of its responses. Pure.

Shared by the operator's asynchronous client (`kube.client`) and the synchronous one of `client.connection`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Literal, NamedTuple

from ddpm_operator.api.model import JsonValue

Document = dict[str, JsonValue]
Method = Literal["GET", "POST", "PATCH", "DELETE"]

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"

_MAX_TEXT_LENGTH = 1024


class ErrorResponse(NamedTuple):
    """An error response.

    Attributes:
        status: the HTTP status.
        reason: Kubernetes' reason, such as AlreadyExists; "" without one.
        message: Kubernetes' message, never empty.
        resource: plural of the resource that the error is about, such as `namespaces`; "" if the response has none.
        conflicts: fields that another field manager owns with other values, such as `spec.samples` -> `kubectl`.
    """

    status: int
    reason: str
    message: str
    resource: str
    conflicts: Mapping[str, str]


def headers(content_type: str) -> dict[str, str]:
    """Returns the headers of a request with a body of this content type."""
    return {"Accept": JSON, "Content-Type": content_type}


def parse_response(status: int, text: bytes) -> Document | ErrorResponse:
    """Parses a response.

    A body that is not JSON, such as a proxy's error page, becomes an ErrorResponse with the beginning of that body.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = {"message": text.decode(errors="replace").strip()[:_MAX_TEXT_LENGTH]}
    if not isinstance(document, dict):
        document = {}
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return document
    details = document.get("details")
    return ErrorResponse(
        status,
        str(document.get("reason") or ""),
        str(document.get("message") or f"the API server answered {status}"),
        str(details.get("kind", "")) if isinstance(details, dict) else "",
        _conflicts(details.get("causes") if isinstance(details, dict) else None),
    )


def _conflicts(causes: object) -> dict[str, str]:
    listed = [it for it in causes if isinstance(it, dict)] if isinstance(causes, list) else []
    conflicts = [it for it in listed if it.get("reason") == "FieldManagerConflict"]
    return {str(it.get("field", "")).lstrip("."): _manager(str(it.get("message", ""))) for it in conflicts}


def _manager(message: str) -> str:
    """Returns the field manager named in ``conflict with "kubectl-edit" using ddpm-ray.io/v1alpha1``."""
    quoted = re.search(r'"([^"]*)"', message)
    return quoted[1] if quoted else message
