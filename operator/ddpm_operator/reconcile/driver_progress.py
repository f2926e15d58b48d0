"""Follows a driver that has not ended: records its progress, submits it if it is missing, and copies its preview."""

from __future__ import annotations

from datetime import timedelta

from ddpm_operator.api import ConditionType, Phase
from ddpm_operator.reconcile.actions import SubmitJob
from ddpm_operator.reconcile.assessment import Assessment
from ddpm_operator.reconcile.attempts import rendering
from ddpm_operator.reconcile.driver_state import DriverMissing, DriverRunning
from ddpm_operator.reconcile.growth import update_plan
from ddpm_operator.reconcile.observed import HeadResponse, Observed, ObservedPod
from ddpm_operator.reconcile.placement import record_placement
from ddpm_operator.reconcile.polling import head_poll_interval, progress_poll_interval
from ddpm_operator.reconcile.preview import copy_preview, preview_config_map
from ddpm_operator.reconcile.progress import updated
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition
from ddpm_operator.text import as_sentence, redact

# Phases of the driver in which the attempt is Running.
_SAMPLING_PHASES = ("sampling", "writing", "complete")


def record_progress(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> StatusBuilder:
    """Records whether the driver samples, its progress and the plan it has chosen, whatever else the pass decides."""
    spec, status, poll = observed.sampling.spec, draft.status, observed.head_poll
    document = poll.progress if isinstance(poll, HeadResponse) else None
    if document is None:
        deadline = assessment.startup_deadline
        silent = assessment.driver == DriverRunning(running=True, progress=None)
        if silent and deadline and draft.now >= deadline:
            # The driver works although its progress server does not answer: no reason to end it.
            return _running(draft, "The driver runs, but does not report its progress.")
        return draft
    if status.progress:
        draft = draft.set(progress=updated(status.progress, document, spec.samples, draft.now))
    if status.plan and document.plan:
        # The driver's plan is for the samples it was submitted with; more may be requested by now.
        draft = update_plan(
            spec, draft.set(plan=status.plan.model_copy(update=document.plan.model_dump(exclude_none=True)))
        )
        draft = record_placement(observed, document, draft)
    message = as_sentence(redact(document.message)) if document.message else f"The driver is {document.phase}."
    if document.phase in _SAMPLING_PHASES or draft.holds(ConditionType.RUNNING):
        return _running(draft, message)
    return draft.set_condition(ConditionType.RUNNING, False, "Starting", message)


def follow_driver(observed: Observed, assessment: Assessment, draft: StatusBuilder, head: ObservedPod) -> Transition:
    """Submits a missing driver, copies the preview of a running driver, and schedules the next poll.

    Args:
        head: `Observed.pollable_head`.
    """
    age = _age(draft)
    next_poll = draft.now + head_poll_interval(age, head_ready=head.ready)
    match assessment.driver:
        case DriverMissing(job_id):
            submit = SubmitJob(rendering(observed, draft), job_id, head.ip)
            return Transition(draft, after_write=(submit,), requeue_at=next_poll)
        case DriverRunning(_, ProgressDocument() as document):
            if draft.status.output:
                preview = preview_config_map(observed, draft)
                draft = draft.set(output=draft.status.output.model_copy(update={"grid": preview}))
            next_poll = draft.now + progress_poll_interval(age, document.eta_seconds)
            actions = copy_preview(observed, draft, document, head.ip)
            return Transition(draft, after_write=actions, requeue_at=next_poll)
    return Transition(draft, requeue_at=next_poll)


def _running(draft: StatusBuilder, message: str) -> StatusBuilder:
    return draft.set(phase=Phase.RUNNING).set_condition(ConditionType.RUNNING, True, "Sampling", message)


def _age(draft: StatusBuilder) -> timedelta | None:
    """Returns the time since the attempt's admission."""
    admitted = draft.status.cluster.start_time if draft.status.cluster else None
    return draft.now - admitted if admitted else None
