"""A sampling that this operator cannot read, as when its CRD is of a newer release or an older one. Pure.

Nothing is known of it, so nothing is done about it. All that is written is one condition, by a field manager of
its own: to apply it as the operator's own manager would take away all else that the status says.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from ddpm_operator.api import Condition, ConditionType, DDPMSampling, FailureReason
from ddpm_operator.api.model import JsonValue
from ddpm_operator.kube.responses import Document
from ddpm_operator.text import MAX_MESSAGE_LENGTH, clip

MANAGER = "ddpm-operator-reader"


class SchemaMismatch(Exception):
    """The operator's types refuse what the API server has.

    Args:
        document: the resource.
        fault: the field, and what is wrong with it.
    """

    def __init__(self, document: Document, fault: str) -> None:
        super().__init__(fault)
        self.document = document
        self.fault = fault


def decode_sampling(document: Document) -> DDPMSampling:
    """A sampling as the API server has it.

    Raises:
        Unreadable: if it is of no form that this operator knows.
    """
    try:
        return DDPMSampling.from_document(document)
    except ValidationError as error:
        fault = error.errors()[0]
        raise SchemaMismatch(document, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error


def objection(document: Document, fault: str, now: datetime) -> Document | None:
    """The condition Accepted=False, to be applied to the resource's status.

    Returns:
        None if it is said already, or need not be: the sampling has ended, or is being deleted.
    """
    metadata, status = _mapping(document.get("metadata")), _mapping(document.get("status"))
    said = _accepted(status)
    message = clip(
        f"This operator cannot read the resource, which its own release of the CRD would refuse: {fault}. Nothing "
        "is done about it until operator and CRD are of one release: ask the cluster's administrator to upgrade "
        "the chart.",
        MAX_MESSAGE_LENGTH,
    )
    if said.get("message") == message or "completionTime" in status or "deletionTimestamp" in metadata:
        return None
    condition = Condition(
        type=ConditionType.ACCEPTED,
        status="False",
        reason=FailureReason.INVALID_SPEC,
        message=message,
        last_transition_time=now,
    ).to_document()
    if said.get("status") == "False":
        condition["lastTransitionTime"] = said.get("lastTransitionTime")
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
    found = (_mapping(it) for it in (conditions if isinstance(conditions, list) else ()))
    return next((it for it in found if it.get("type") == ConditionType.ACCEPTED), {})


def _mapping(value: JsonValue) -> Document:
    return value if isinstance(value, dict) else {}
