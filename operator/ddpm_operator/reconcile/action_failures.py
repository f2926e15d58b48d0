"""What a refused action means for the sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.diagnosis import Problem
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from ddpm_operator.text import as_sentence

_REASONS = {
    ActionErrorKind.KUBERAY_MISSING: FailureReason.KUBERAY_MISSING,
    ActionErrorKind.KUBERAY_TOO_OLD: FailureReason.KUBERAY_MISSING,
    ActionErrorKind.QUOTA: FailureReason.QUOTA_EXCEEDED,
    ActionErrorKind.FORBIDDEN: FailureReason.POD_REJECTED,
    ActionErrorKind.NO_RIGHT: FailureReason.POD_REJECTED,
    ActionErrorKind.WEBHOOK_AWAY: FailureReason.POD_REJECTED,
    ActionErrorKind.INVALID: FailureReason.INVALID_SPEC,
    ActionErrorKind.NOT_FOUND: FailureReason.REFERENCE_NOT_FOUND,
    ActionErrorKind.TAKEN: FailureReason.INTERNAL_ERROR,
    ActionErrorKind.TEMPLATE: FailureReason.INTERNAL_ERROR,
    ActionErrorKind.OPEN_HEAD: FailureReason.INVALID_SPEC,
}
_HINTS = {
    ActionErrorKind.KUBERAY_TOO_OLD: "Ask the cluster's administrator for KubeRay 1.6 or newer, or look whether the "
    "operator's templates were changed.",
    ActionErrorKind.FORBIDDEN: "Ask the cluster's administrator: a policy or a webhook refuses the object.",
    ActionErrorKind.NO_RIGHT: "Ask the cluster's administrator to install the operator's chart again: its account lacks "
    "a right that the chart gives.",
    ActionErrorKind.WEBHOOK_AWAY: "Ask the cluster's administrator: a webhook that has a say in it does not answer.",
    ActionErrorKind.TAKEN: "Another object has this name: look whose it is, and rename or delete one of the two.",
    ActionErrorKind.TEMPLATE: "Ask the cluster's administrator to correct the template, which is part of the operator's "
    "installation; then run `kubectl ddpm retry`.",
    ActionErrorKind.OPEN_HEAD: "Create a new DDPMSampling with an image of Ray 2.54 or newer; without spec.image it "
    "gets the operator's own.",
}
_MAY_PASS = {
    ActionErrorKind.QUOTA,
    ActionErrorKind.KUBERAY_MISSING,
    ActionErrorKind.WEBHOOK_AWAY,
    ActionErrorKind.NO_RIGHT,
}


@dataclass(frozen=True)
class ActionFailure:
    """Something the sampling needs was not created.

    Attributes:
        hint: "" for the reason's own.
    """

    trouble: Problem
    hint: str = ""


def failing(faults: Sequence[ActionError]) -> str:
    """The first of the faults as a sentence, whether or not it has a cause; "" if there is none."""
    return as_sentence(f"The operator cannot {faults[0].doing}: {faults[0].message}") if faults else ""


def action_failure(faults: Sequence[ActionError]) -> ActionFailure | None:
    """The first refusal that has a cause; None if there is none, or only such as pass by themselves."""
    for fault in faults:
        reason = _REASONS.get(fault.kind)
        if reason:
            message = failing([fault])
            certain = fault.kind not in _MAY_PASS
            return ActionFailure(Problem(reason, message, certain), _HINTS.get(fault.kind, ""))
    return None
