"""What goes to the Kubernetes API and comes back, whoever asks and however: documents, and refusals. Pure."""

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

_LONGEST_TEXT = 1024


class ErrorResponse(NamedTuple):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        reason: Kubernetes' own word for it, such as AlreadyExists; "" if it has none.
        message: its sentence, never empty.
        kind: what it is about, as far as it says so: a plural such as `namespaces`.
        conflicts: fields that another manager has set to other values, and which: `spec.samples` to `kubectl`.
    """

    status: int
    reason: str
    message: str
    kind: str
    conflicts: Mapping[str, str]


def headers(content_type: str) -> dict[str, str]:
    """Of a request with a body of this type."""
    return {"Accept": JSON, "Content-Type": content_type}


def parse_response(status: int, text: bytes) -> Document | ErrorResponse:
    """What an answer says. A proxy's page instead of a document is a refusal with its beginning."""
    try:
        document = json.loads(text)
    except ValueError:
        document = {"message": text.decode(errors="replace").strip()[:_LONGEST_TEXT]}
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
    found = [it for it in causes if isinstance(it, dict)] if isinstance(causes, list) else []
    conflicts = [it for it in found if it.get("reason") == "FieldManagerConflict"]
    return {str(it.get("field", "")).lstrip("."): _manager(str(it.get("message", ""))) for it in conflicts}


def _manager(message: str) -> str:
    """The name in ``conflict with "kubectl-edit" using ddpm-ray.io/v1alpha1``."""
    quoted = re.search(r'"([^"]*)"', message)
    return quoted[1] if quoted else message
