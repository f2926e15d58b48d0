"""What a refused action means for the sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_operator.api import FailureReason
from ddpm_operator.reconcile.diagnosis import Trouble
from ddpm_operator.reconcile.observed import Fault, FaultKind
from ddpm_operator.text import sentence

_REASONS = {
    FaultKind.KUBERAY_MISSING: FailureReason.KUBERAY_MISSING,
    FaultKind.KUBERAY_TOO_OLD: FailureReason.KUBERAY_MISSING,
    FaultKind.QUOTA: FailureReason.QUOTA_EXCEEDED,
    FaultKind.FORBIDDEN: FailureReason.POD_REJECTED,
    FaultKind.NO_RIGHT: FailureReason.POD_REJECTED,
    FaultKind.WEBHOOK_AWAY: FailureReason.POD_REJECTED,
    FaultKind.INVALID: FailureReason.INVALID_SPEC,
    FaultKind.NOT_FOUND: FailureReason.REFERENCE_NOT_FOUND,
    FaultKind.TAKEN: FailureReason.INTERNAL_ERROR,
    FaultKind.TEMPLATE: FailureReason.INTERNAL_ERROR,
    FaultKind.OPEN_HEAD: FailureReason.INVALID_SPEC,
}
_HINTS = {
    FaultKind.KUBERAY_TOO_OLD: "Ask the cluster's administrator for KubeRay 1.6 or newer, or look whether the "
    "operator's templates were changed.",
    FaultKind.FORBIDDEN: "Ask the cluster's administrator: a policy or a webhook refuses the object.",
    FaultKind.NO_RIGHT: "Ask the cluster's administrator to install the operator's chart again: its account lacks "
    "a right that the chart gives.",
    FaultKind.WEBHOOK_AWAY: "Ask the cluster's administrator: a webhook that has a say in it does not answer.",
    FaultKind.TAKEN: "Another object has this name: look whose it is, and rename or delete one of the two.",
    FaultKind.TEMPLATE: "Ask the cluster's administrator to correct the template, which is part of the operator's "
    "installation; then run `kubectl ddpm retry`.",
    FaultKind.OPEN_HEAD: "Create a new DDPMSampling with an image of Ray 2.54 or newer; without spec.image it "
    "gets the operator's own.",
}
_MAY_PASS = {FaultKind.QUOTA, FaultKind.KUBERAY_MISSING, FaultKind.WEBHOOK_AWAY, FaultKind.NO_RIGHT}


@dataclass(frozen=True)
class Refusal:
    """Something the sampling needs was not created.

    Attributes:
        hint: "" for the reason's own.
    """

    trouble: Trouble
    hint: str = ""


def failing(faults: Sequence[Fault]) -> str:
    """The first of the faults as a sentence, whether or not it has a cause; "" if there is none."""
    return sentence(f"The operator cannot {faults[0].doing}: {faults[0].message}") if faults else ""


def refusal(faults: Sequence[Fault]) -> Refusal | None:
    """The first refusal that has a cause; None if there is none, or only such as pass by themselves."""
    for fault in faults:
        reason = _REASONS.get(fault.kind)
        if reason:
            message = failing([fault])
            certain = fault.kind not in _MAY_PASS
            return Refusal(Trouble(reason, message, certain), _HINTS.get(fault.kind, ""))
    return None
