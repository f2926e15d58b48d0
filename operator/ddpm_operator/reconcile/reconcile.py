"""Decides what to do about a sampling, from what was observed of it. Pure: the time is an argument.

If the sampling is being deleted, only its clusters are deleted. Otherwise it is in one of these states, according to
its status alone:

- finished: it has a completionTime. It runs again only if spec.samples, spec.backoffLimit (after a failure) or
  spec.repair (after a success) is raised;
- suspended: spec.suspend is true;
- active: it has a cluster in its status, see `ddpm_operator.reconcile.active_attempt`;
- between attempts: otherwise, see `ddpm_operator.reconcile.between_attempts`.

In every state, each RayCluster that is not the active attempt's is deleted, see `ddpm_operator.reconcile.cleanup`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from ddpm_operator.api import ConditionType, DDPMSampling, Phase, Spec, Status
from ddpm_operator.api.conditions import condition
from ddpm_operator.api.status import Result
from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.actions import Action, Decision, DeleteCluster, DeleteSampling, WriteStatus
from ddpm_operator.reconcile.active_attempt import active_attempt
from ddpm_operator.reconcile.assessment import Assessment, assess
from ddpm_operator.reconcile.attempts import end, output_uri, wants_repair
from ddpm_operator.reconcile.between_attempts import between_attempts
from ddpm_operator.reconcile.cleanup import clean_up
from ddpm_operator.reconcile.driver_progress import record_progress
from ddpm_operator.reconcile.events import events
from ddpm_operator.reconcile.images import requested_image
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.polling import PROGRESS_WRITE_INTERVAL, requeue_after
from ddpm_operator.reconcile.progress import progress
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition, earliest


def reconcile(observed: Observed, now: datetime) -> Decision:
    """Returns what to do about a sampling.

    Args:
        observed: read in the order that `ddpm_operator.reconcile.observed` asks for.
        now: with a time zone.
    """
    sampling = observed.sampling
    if sampling.metadata.deletion_timestamp:
        # Garbage collection deletes its objects, but another party's finalizer may keep it forever, and the cluster
        # must not wait for that.
        return Decision(tuple(DeleteCluster(it.name, it.uid) for it in observed.clusters if not it.deleted))
    draft = _begin_status(sampling, now.replace(microsecond=0))
    assessment = assess(observed, draft.status, draft.now)
    transition = clean_up(observed, _transition(observed, assessment, draft))
    return _decision(sampling, _with_due_time(transition, sampling.spec), now)


def _begin_status(sampling: DDPMSampling, now: datetime) -> StatusBuilder:
    """Returns the previous status, updated to the current spec, or the first status of a new sampling."""
    spec, generation = sampling.spec, sampling.metadata.generation
    if sampling.status is None:
        draft = StatusBuilder(Status(phase=Phase.PENDING), None, generation, now)
        draft = draft.set(failed_attempts=0, running_seconds=0, output=Result(uri=output_uri(sampling)))
        draft = draft.set(progress=progress(0, spec.samples))
        message = "There has been no attempt yet."
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, "NotBegun", message)
        draft = draft.set_condition(ConditionType.RUNNING, False, "NotBegun", message)
        draft = draft.set_condition(ConditionType.SUSPENDED, False, "NotAsked", "spec.suspend is false.")
        return _not_finished(draft).observe_generation()
    status = deadlines.clamped_to(sampling.status, now)
    draft = StatusBuilder(status, status, generation, now).observe_generation()
    previous = status.progress
    if sampling.status.completion_time is None and previous and previous.total < spec.samples:
        grown = progress(previous.done, spec.samples)
        draft = draft.set(progress=grown.model_copy(update={"last_update_time": previous.last_update_time}))
    return draft


def _not_finished(draft: StatusBuilder) -> StatusBuilder:
    draft = draft.set_condition(ConditionType.COMPLETE, False, "InProgress", "Not all samples are stored yet.")
    return draft.set_condition(ConditionType.FAILED, False, "InProgress", "The sampling has not failed.")


def _transition(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> Transition:
    """Returns the transition of the state that the sampling is in."""
    spec = observed.sampling.spec
    if draft.status.completion_time:
        draft = _run_again(draft, spec)
    if draft.status.completion_time:
        return _finished(observed, draft)
    if spec.suspend:
        return Transition(_suspended(observed, record_progress(observed, assessment, draft)))
    if draft.holds(ConditionType.SUSPENDED):
        draft = draft.set_condition(ConditionType.SUSPENDED, False, "Resumed", "spec.suspend is false again.")
    if draft.status.cluster:
        return active_attempt(observed, assessment, draft)
    return between_attempts(observed, assessment, draft)


def _run_again(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """Reopens a finished sampling if the spec asks for more work. Its running time restarts at 0.

    spec.samples was raised; or spec.repair, after a success; or spec.backoffLimit, after a failure. A failed check of
    all files is repeated with the latter.
    """
    status = draft.status
    total = status.progress.total if status.progress else 0
    limit_at_failure = status.failure.backoff_limit if status.failure else None
    grown = spec.samples > total
    repairs = status.phase is Phase.SUCCEEDED and wants_repair(spec, status)
    retried = limit_at_failure is not None and spec.backoff_limit > limit_at_failure
    if not (grown or repairs or retried):
        return draft
    done = status.progress.done if status.progress else 0
    draft = draft.set(
        phase=Phase.PENDING,
        completion_time=None,
        failure=None,
        failed_attempts=0 if grown or repairs else status.failed_attempts,
        running_seconds=0,
        progress=progress(done, spec.samples),
    )
    return _not_finished(draft)


def _finished(observed: Observed, draft: StatusBuilder) -> Transition:
    """Deletes a finished resource once its ttlSecondsAfterFinished has elapsed."""
    expiry = deadlines.expiry(observed.sampling.spec, draft.status)
    if expiry and draft.now >= expiry:
        return Transition(draft, after_write=(DeleteSampling(observed.sampling.metadata.resource_version),))
    return Transition(draft)


def _suspended(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    """Ends the active attempt because of spec.suspend, which is not a failure.

    Before the first attempt, the status names the image that it would use: `kubectl ddpm submit` uploads a checkpoint
    with a pod of that image.
    """
    spec = observed.sampling.spec
    message = "spec.suspend is true. The stored samples are kept."
    if draft.status.cluster:
        draft = end(draft, spec, "Suspended", message)
    if not draft.status.attempt:
        draft = draft.set(image=requested_image(observed, draft.status))
    return draft.set(phase=Phase.SUSPENDED).set_condition(ConditionType.SUSPENDED, True, "Asked", message)


def _with_due_time(transition: Transition, spec: Spec) -> Transition:
    """Requeues for the end of a back-off or of a finished resource's TTL, which no watch event announces."""
    status = transition.draft.status
    if spec.suspend and not status.completion_time:
        return transition
    due = deadlines.expiry(spec, status) if status.completion_time else deadlines.retry_time(status)
    if due is None or due <= transition.draft.now:
        return transition
    return replace(transition, requeue_at=earliest(transition.requeue_at, due))


def _decision(sampling: DDPMSampling, transition: Transition, now: datetime) -> Decision:
    """Returns the actions in their order, the status write among them if the status has changed."""
    old = sampling.status
    # Round-trip through the schema, so that an invalid status, a bug of the operator, is caught before it is written.
    new = Status.from_document(transition.draft.status.to_document())
    requeue_at = transition.requeue_at
    write: tuple[Action, ...] = ()
    delayed_until = _write_delayed_until(old, new)
    if delayed_until and now < delayed_until:
        requeue_at = earliest(requeue_at, delayed_until)
    elif new != old:
        write = (WriteStatus(new, sampling.metadata.resource_version), *events(old, new))
    actions = (*transition.before_write, *write, *transition.after_write)
    return Decision(actions, requeue_after(requeue_at, now))


def _write_delayed_until(old: Status | None, new: Status) -> datetime | None:
    """Returns the time until which the write of a status can wait; None unless only its progress has changed."""
    if old is None or old.progress is None or old.progress.last_update_time is None or new == old:
        return None
    only_progress = _without_progress(old) == _without_progress(new)
    return old.progress.last_update_time + PROGRESS_WRITE_INTERVAL if only_progress else None


def _without_progress(status: Status) -> Status:
    """Returns the status without the figures of its progress and without the driver's message."""
    running = condition(status, ConditionType.RUNNING)
    others = tuple(it for it in status.conditions if it is not running)
    without_message = (running.model_copy(update={"message": ""}),) if running else ()
    total = status.progress.total if status.progress else 0
    return status.model_copy(update={"progress": progress(0, total), "conditions": (*others, *without_message)})
