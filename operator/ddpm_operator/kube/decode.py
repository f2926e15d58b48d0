"""Decodes DDPMSamplings, and reports one that the operator's types reject. Pure.

The schemas of the CRD and of the operator differ when their releases do. The operator then does not act on the
sampling and only writes the condition Accepted=False. It applies that condition with a separate field manager:
server-side apply with the operator's usual one would remove every other field of the status.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, FailureReason
from ddpm_operator.api.model import JsonValue
from ddpm_operator.kube.responses import Document
from ddpm_operator.text import MAX_MESSAGE_LENGTH, clip

SCHEMA_FIELD_MANAGER = "ddpm-operator-reader"


class SchemaMismatch(Exception):
    """The resource on the API server does not fit the operator's types.

    Args:
        document: the resource.
        detail: path of the first invalid field, and what is wrong with it.
    """

    def __init__(self, document: Document, detail: str) -> None:
        super().__init__(detail)
        self.document = document
        self.detail = detail


def decode_sampling(document: Document) -> DDPMSampling:
    """Decodes a DDPMSampling from the API server's JSON.

    Raises:
        SchemaMismatch: if it does not fit the operator's types.
    """
    try:
        return DDPMSampling.from_document(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise SchemaMismatch(document, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def schema_mismatch_status(document: Document, detail: str, now: datetime) -> Document | None:
    """Returns a manifest to apply to the resource's status subresource, with the condition Accepted=False.

    Returns:
        None if the condition is there already, or the sampling has ended or is being deleted.
    """
    metadata, status = _mapping(document.get("metadata")), _mapping(document.get("status"))
    current = _accepted(status)
    message = clip(
        f"The resource does not fit the operator's schema: {detail}. The operator ignores it while the CRD and the "
        "operator are of different releases: ask the cluster's administrator to upgrade the chart.",
        MAX_MESSAGE_LENGTH,
    )
    if current.get("message") == message or "completionTime" in status or "deletionTimestamp" in metadata:
        return None
    condition = Condition(
        type=ConditionType.ACCEPTED,
        status="False",
        reason=FailureReason.INVALID_SPEC,
        message=message,
        last_transition_time=now,
    ).to_document()
    if current.get("status") == "False":
        condition["lastTransitionTime"] = current.get("lastTransitionTime")
    if isinstance(metadata.get("generation"), int):
        condition["observedGeneration"] = metadata["generation"]
    return {
        "apiVersion": document.get("apiVersion"),
        "kind": document.get("kind"),
        "metadata": {name: metadata.get(name) for name in ("name", "namespace", "uid")},
        "status": {"conditions": [condition]},
    }


def _accepted(status: Document) -> Document:
    conditions = status.get("conditions")
    mappings = (_mapping(it) for it in (conditions if isinstance(conditions, list) else ()))
    return next((it for it in mappings if it.get("type") == ConditionType.ACCEPTED), {})


def _mapping(value: JsonValue) -> Document:
    return value if isinstance(value, dict) else {}
