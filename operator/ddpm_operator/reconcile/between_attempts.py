"""Between two attempts: waits for the back-off, the clean-up, the output's claim and the operator's own admission.

Then plans the next attempt and begins it. The operator's admission (the chart's `atOnce`) is one of four reasons for
the phase Queued, besides Kueue (`ddpm_operator.reconcile.kueue`), a full quota (`ddpm_operator.reconcile.quota`) and
hardware (`ddpm_operator.reconcile.other_hardware`).
"""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import ConditionType, FailureReason, Phase, Spec
from ddpm_operator.api.conditions import condition
from ddpm_operator.api.uri import claim_path
from ddpm_operator.planning.sizing import PlanningError, plan
from ddpm_operator.reconcile import deadlines, other_hardware
from ddpm_operator.reconcile.active_attempt import create
from ddpm_operator.reconcile.assessment import Assessment
from ddpm_operator.reconcile.attempts import begin, plan_summary, reject
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.polling import ADMISSION_RESYNC, CLAIM_POLL, RESYNC
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.quota import yielded_to_other
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition
from ddpm_operator.text import as_sentence, count


def between_attempts(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> Transition:
    """Begins the next attempt, or returns what it waits for, or rejects the sampling."""
    spec, status = observed.sampling.spec, draft.status
    draft = draft.set(phase=Phase.PENDING)
    retry = deadlines.retry_time(status)
    if retry and draft.now < retry:
        return Transition(_waiting_to_retry(draft, spec, retry))
    if observed.blocked_by and yielded_to_other(draft):
        return Transition(draft.set(phase=Phase.QUEUED), requeue_at=draft.now + RESYNC)
    waiting = other_hardware.waiting(draft, spec)
    if waiting:
        return Transition(waiting[0], requeue_at=waiting[1])
    if not assessment.cleaned_up:
        message = f"The next attempt waits until all pods of attempt {status.attempt or 0} are gone."
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, "WaitingForCleanUp", message)
        return Transition(draft, requeue_at=draft.now + RESYNC)
    violation = observed.limits.violation(spec)
    if violation:
        problem = Problem(FailureReason.INVALID_SPEC, violation.message, certain=True)
        return Transition(reject(draft, spec, problem, violation.hint))
    unusable = _claim_problem(observed)
    if unusable:
        return _without_claim(draft, spec, unusable)
    try:
        next_plan = plan(spec, previous=status.plan)
    except PlanningError as error:
        problem = Problem(FailureReason.INVALID_SPEC, as_sentence(error.message), certain=True)
        return Transition(reject(draft, spec, problem, f"{error.hint}; then run `kubectl ddpm retry`."))
    if observed.admission_hold:
        draft = draft.set(phase=Phase.QUEUED)
        draft = draft.set_condition(ConditionType.ACCEPTED, True, "Planned", plan_summary(spec, next_plan))
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, "WaitingForTurn", observed.admission_hold)
        return Transition(draft, requeue_at=draft.now + ADMISSION_RESYNC)
    draft = begin(draft, observed.sampling, next_plan)
    return Transition(draft, after_write=create(observed, draft), requeue_at=draft.now + RESYNC)


def _waiting_to_retry(draft: StatusBuilder, spec: Spec, retry: datetime) -> StatusBuilder:
    status = draft.status
    number = (status.attempt or 0) + 1
    left = max(1, spec.backoff_limit + 1 - (status.failed_attempts or 0))
    message = f"Attempt {number} begins at {retry:%H:%M:%S} UTC; {count(left, 'attempt')} left."
    return draft.set_condition(ConditionType.CLUSTER_READY, False, "WaitingToRetry", message)


def _claim_problem(observed: Observed) -> Problem | None:
    """Returns what is wrong with the claim for the output; None if nothing is."""
    sampling, claim = observed.sampling, observed.claim
    named = claim_path(sampling.spec.output.uri or "")
    where = f"in the namespace {sampling.metadata.namespace}"
    if named and claim is None:
        message = f"spec.output.uri names the claim {named.claim}, which does not exist {where}."
        return Problem(FailureReason.REFERENCE_NOT_FOUND, message, certain=False)
    if claim and claim.phase == "Lost":
        message = f"The claim {claim.name} {where} has lost its volume."
        return Problem(FailureReason.STORAGE_FAILED, message, certain=True)
    return None


def _without_claim(draft: StatusBuilder, spec: Spec, problem: Problem) -> Transition:
    """Rejects the sampling, but first waits for `GRACE`: the claim may be created together with the sampling."""
    draft = draft.set_condition(ConditionType.ACCEPTED, False, problem.reason, problem.message)
    accepted = condition(draft.status, ConditionType.ACCEPTED)
    until = accepted.last_transition_time + deadlines.GRACE if accepted else draft.now
    if problem.certain or draft.now >= until:
        return Transition(reject(draft, spec, problem))
    return Transition(draft, requeue_at=draft.now + CLAIM_POLL)
