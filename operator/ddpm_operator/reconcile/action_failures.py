"""Maps an action that the API server, a template or the head rejected to the problem that it is for the sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm_operator.api import FailureReason, Plan, Spec
from ddpm_operator.reconcile import kuberay
from ddpm_operator.reconcile.observed import ActionError, ActionErrorKind
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.quota import check_quota, rejected_by_quota
from ddpm_operator.text import as_sentence

_REASONS = {
    ActionErrorKind.KUBERAY_MISSING: FailureReason.KUBERAY_MISSING,
    ActionErrorKind.KUBERAY_TOO_OLD: FailureReason.KUBERAY_MISSING,
    ActionErrorKind.FORBIDDEN: FailureReason.POD_REJECTED,
    ActionErrorKind.OPERATOR_FORBIDDEN: FailureReason.POD_REJECTED,
    ActionErrorKind.WEBHOOK_UNAVAILABLE: FailureReason.POD_REJECTED,
    ActionErrorKind.INVALID: FailureReason.INVALID_SPEC,
    ActionErrorKind.NOT_FOUND: FailureReason.REFERENCE_NOT_FOUND,
    ActionErrorKind.NAME_TAKEN: FailureReason.INTERNAL_ERROR,
    ActionErrorKind.TEMPLATE: FailureReason.INTERNAL_ERROR,
    ActionErrorKind.HEAD_WITHOUT_AUTH: FailureReason.INVALID_SPEC,
}
_HINTS = {
    ActionErrorKind.KUBERAY_TOO_OLD: kuberay.TOO_OLD_HINT,
    ActionErrorKind.FORBIDDEN: "Ask the cluster's administrator: a policy or a webhook rejects the object.",
    ActionErrorKind.OPERATOR_FORBIDDEN: "Ask the cluster's administrator to install the operator's chart again: its "
    "service account lacks a permission that the chart grants.",
    ActionErrorKind.WEBHOOK_UNAVAILABLE: "Ask the cluster's administrator: an admission webhook does not answer.",
    ActionErrorKind.NAME_TAKEN: "Another object has this name: find out what created it, and rename or delete one of "
    "the two.",
    ActionErrorKind.TEMPLATE: "Ask the cluster's administrator to correct the template, which is part of the "
    "operator's installation; then run `kubectl ddpm retry`.",
    ActionErrorKind.HEAD_WITHOUT_AUTH: "Create a new DDPMSampling with an image of Ray 2.54 or newer; without "
    "spec.image it gets the operator's default image.",
}
# The attempt waits for these until its startup deadline, as it does for a full quota.
_MAY_PASS = {
    ActionErrorKind.KUBERAY_MISSING,
    ActionErrorKind.WEBHOOK_UNAVAILABLE,
    ActionErrorKind.OPERATOR_FORBIDDEN,
}


@dataclass(frozen=True)
class ActionFailure:
    """An action that keeps the sampling from making progress because it was rejected.

    Attributes:
        hint: what to do about it; "" for the hint of the problem's reason.
    """

    problem: Problem
    hint: str = ""


def describe_first(errors: Sequence[ActionError]) -> str:
    """Returns the first of the errors as a sentence, whether or not it is retried; "" if there is none."""
    return as_sentence(f"The operator cannot {errors[0].attempted_action}: {errors[0].message}") if errors else ""


def action_failure(errors: Sequence[ActionError], spec: Spec, plan: Plan | None) -> ActionFailure | None:
    """Returns the first error that is a problem of the sampling; None if there is none, or if all are transient."""
    for error in errors:
        if error.kind is ActionErrorKind.QUOTA:
            problem = rejected_by_quota("The operator", error.attempted_action, error.message)
            return ActionFailure(check_quota(problem, spec, plan))
        reason = _REASONS.get(error.kind)
        if reason:
            problem = Problem(reason, describe_first([error]), certain=error.kind not in _MAY_PASS)
            return ActionFailure(problem, _HINTS.get(error.kind, ""))
    return None
