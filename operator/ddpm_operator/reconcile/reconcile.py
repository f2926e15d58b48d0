"""From what is seen of a sampling to what is done next. Pure: the time is handed in.

Of a sampling that is being deleted only the clusters are left to be ended. Any other is in one of these states,
each told from the status alone:

- ended: it has a completionTime. It runs again only when more samples are asked for, or backoffLimit is raised;
- suspended: spec.suspend;
- under way: it has a cluster in its status, see `ddpm_operator.reconcile.active_attempt`;
- between attempts: all else. The next attempt begins once nothing is left of the last one and its time has come.

Whatever RayCluster is not the present attempt's is deleted in every state.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ddpm_operator.api import KEPT, ConditionType, DDPMSampling, FailureReason, Phase, Spec, Status
from ddpm_operator.api.status import Result
from ddpm_operator.api.uri import claim_path
from ddpm_operator.planning.sizing import PlanningError, plan
from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.actions import Action, Decision, DeleteCluster, DeleteSampling, WriteStatus
from ddpm_operator.reconcile.active_attempt import active_attempt, create
from ddpm_operator.reconcile.attempts import begin, end, image_of, nothing_left, output_uri, reject, summary
from ddpm_operator.reconcile.diagnosis import Problem
from ddpm_operator.reconcile.driver_status import record_driver_status
from ddpm_operator.reconcile.events import events
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.progress import LEAST_BETWEEN_WRITES, progress
from ddpm_operator.reconcile.quota import yielded_to_other
from ddpm_operator.reconcile.status_builder import StatusBuilder, condition
from ddpm_operator.reconcile.transition import Transition, earliest
from ddpm_operator.text import as_sentence, count

_NET = timedelta(seconds=10)
# Whoever's turn it is, is called; this is for a call that was missed.
_TURN = timedelta(minutes=1)
_SHORTEST_PAUSE = timedelta(seconds=0.25)


def reconcile(observed: Observed, now: datetime) -> Decision:
    """What follows from a look at a sampling.

    Args:
        observed: read as `ddpm_operator.reconcile.observed` asks for.
        now: with a time zone.
    """
    if observed.sampling.metadata.deletion_timestamp:
        # What it owns goes with it; but somebody's finalizer may keep it for ever, and its cluster is not to wait.
        return Decision(tuple(DeleteCluster(it.name, it.uid) for it in observed.clusters if not it.deleted))
    step = _cleaned_up(observed, _step(observed, _begun(observed.sampling, now.replace(microsecond=0))))
    return _decision(observed.sampling, _in_time(step, observed.sampling.spec), now)


def _begun(sampling: DDPMSampling, now: datetime) -> StatusBuilder:
    """The former status, said of the present spec; of a new sampling one in which nothing has happened yet."""
    spec, generation = sampling.spec, sampling.metadata.generation
    if sampling.status is None:
        draft = StatusBuilder(Status(phase=Phase.PENDING), None, generation, now)
        draft = draft.put(failed_attempts=0, running_seconds=0, output=Result(uri=output_uri(sampling)))
        draft = draft.put(progress=progress(0, spec.samples))
        draft = draft.say(ConditionType.CLUSTER_READY, False, "NotBegun", "There has been no attempt yet.")
        draft = draft.say(ConditionType.RUNNING, False, "NotBegun", "There has been no attempt yet.")
        draft = draft.say(ConditionType.SUSPENDED, False, "NotAsked", "spec.suspend is false.")
        return _unfinished(draft).confirmed()
    status = deadlines.not_ahead(sampling.status, now)
    draft = StatusBuilder(status, status, generation, now).confirmed()
    former = status.progress
    if sampling.status.completion_time is None and former and former.total < spec.samples:
        done = progress(former.done, spec.samples)
        draft = draft.put(progress=done.model_copy(update={"last_update_time": former.last_update_time}))
    return draft


def _unfinished(draft: StatusBuilder) -> StatusBuilder:
    draft = draft.say(ConditionType.COMPLETE, False, "InProgress", "Not all samples are stored yet.")
    return draft.say(ConditionType.FAILED, False, "InProgress", "The sampling has not failed.")


def _step(observed: Observed, draft: StatusBuilder) -> Transition:
    spec = observed.sampling.spec
    if draft.status.completion_time:
        draft = _run_again(draft, spec)
    if draft.status.completion_time:
        return _ended(observed, draft)
    if spec.suspend:
        return Transition(_suspended(observed, record_driver_status(observed, draft)))
    if draft.holds(ConditionType.SUSPENDED):
        draft = draft.say(ConditionType.SUSPENDED, False, "Resumed", "spec.suspend is false again.")
    if draft.status.cluster:
        return active_attempt(observed, draft)
    return _between_attempts(observed, draft)


def _run_again(draft: StatusBuilder, spec: Spec) -> StatusBuilder:
    """A finished sampling that is to go on: its ends are taken back, and its clocks start anew."""
    status = draft.status
    known = status.progress.total if status.progress else 0
    limit = status.failure.backoff_limit if status.failure else None
    grown = spec.samples > known
    if not grown and (limit is None or spec.backoff_limit <= limit):
        return draft
    done = status.progress.done if status.progress else 0
    draft = draft.put(
        phase=Phase.PENDING,
        completion_time=None,
        failure=None,
        failed_attempts=0 if grown else status.failed_attempts,
        running_seconds=0,
        progress=progress(done, spec.samples),
    )
    return _unfinished(draft)


def _ended(observed: Observed, draft: StatusBuilder) -> Transition:
    expiry = deadlines.expiry(observed.sampling.spec, draft.status)
    if expiry and draft.now >= expiry:
        return Transition(draft, after=(DeleteSampling(observed.sampling.metadata.resource_version),))
    return Transition(draft)


def _suspended(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    """Names the image that pods would run, too: `kubectl ddpm submit` brings a checkpoint with a pod of it."""
    spec = observed.sampling.spec
    why = "spec.suspend is true. The samples that are done stay done."
    if draft.status.cluster:
        draft = end(draft, spec, "Suspended", why)
    if not draft.status.attempt:
        draft = draft.put(image=image_of(observed, draft))
    return draft.put(phase=Phase.SUSPENDED).say(ConditionType.SUSPENDED, True, "Asked", why)


def _between_attempts(observed: Observed, draft: StatusBuilder) -> Transition:
    spec, status = observed.sampling.spec, draft.status
    draft = draft.put(phase=Phase.PENDING)
    due = deadlines.retry_time(status)
    if due and draft.now < due:
        return Transition(_waiting(draft, spec, due))
    if observed.ahead and yielded_to_other(draft):
        return Transition(draft.put(phase=Phase.QUEUED), look=draft.now + _NET)
    if not nothing_left(observed, draft.now):
        why = f"The next attempt waits until nothing is left of attempt {status.attempt or 0}."
        draft = draft.say(ConditionType.CLUSTER_READY, False, "WaitingForCleanUp", why)
        return Transition(draft, look=draft.now + _NET)
    objection = observed.limits.objection(spec)
    if objection:
        cause = Problem(FailureReason.INVALID_SPEC, objection.message, certain=True)
        return Transition(reject(draft, spec, cause, objection.hint))
    missing = _missing_claim(observed)
    if missing:
        return _without_claim(draft, spec, missing)
    try:
        chosen = plan(spec, kept=status.plan)
    except PlanningError as error:
        cause = Problem(FailureReason.INVALID_SPEC, as_sentence(error.message), certain=True)
        return Transition(reject(draft, spec, cause, f"{error.hint}; then run `kubectl ddpm retry`."))
    if observed.held_back:
        draft = draft.put(phase=Phase.QUEUED).say(ConditionType.ACCEPTED, True, "Planned", summary(spec, chosen))
        draft = draft.say(ConditionType.CLUSTER_READY, False, "WaitingForTurn", observed.held_back)
        return Transition(draft, look=draft.now + _TURN)
    draft = begin(draft, observed.sampling, chosen)
    return Transition(draft, after=create(observed, draft), look=draft.now + _NET)


def _waiting(draft: StatusBuilder, spec: Spec, due: datetime) -> StatusBuilder:
    status = draft.status
    following = (status.attempt or 0) + 1
    left = max(1, spec.backoff_limit + 1 - (status.failed_attempts or 0))
    why = f"Attempt {following} begins at {due:%H:%M:%S} UTC; {count(left, 'attempt')} left."
    return draft.say(ConditionType.CLUSTER_READY, False, "WaitingToRetry", why)


def _missing_claim(observed: Observed) -> Problem | None:
    """What is wrong with a claim that the user names for the output."""
    sampling, claim = observed.sampling, observed.claim
    named = claim_path(sampling.spec.output.uri or "")
    where = f"in the namespace {sampling.metadata.namespace}"
    if named and claim is None:
        message = f"spec.output.uri names the claim {named.claim}, which is not there {where}."
        return Problem(FailureReason.REFERENCE_NOT_FOUND, message, certain=False)
    if claim and claim.phase == "Lost":
        message = f"The claim {claim.name} {where} has lost its volume."
        return Problem(FailureReason.STORAGE_FAILED, message, certain=True)
    return None


def _without_claim(draft: StatusBuilder, spec: Spec, missing: Problem) -> Transition:
    """A claim that is created together with the sampling may be there in a moment."""
    draft = draft.say(ConditionType.ACCEPTED, False, missing.reason, missing.message)
    accepted = condition(draft.status, ConditionType.ACCEPTED)
    patience = accepted.last_transition_time + deadlines.GRACE if accepted else draft.now
    if missing.certain or draft.now >= patience:
        return Transition(reject(draft, spec, missing))
    return Transition(draft, look=draft.now + timedelta(seconds=2))


def _cleaned_up(observed: Observed, step: Transition) -> Transition:
    """Deletes every cluster that is not in use, and says whether anything is left."""
    draft, spec = step.draft, observed.sampling.spec
    status = draft.status
    used = status.cluster.name if status.cluster else None
    until = deadlines.kept_until(spec, status)
    kept = status.attempt if until and draft.now < until else None
    idle = [it for it in observed.clusters if it.name != used]
    doomed = [it for it in idle if it.attempt != kept or kept is None]
    deletions = tuple(DeleteCluster(it.name, it.uid) for it in doomed if not it.deleted)
    keeping = [it for it in idle if it not in doomed]
    look: datetime | None = None
    holds = False
    if used:
        reason, message = "InUse", f"The RayCluster {used} is in use."
    elif keeping and until:
        reason, look = KEPT, until
        message = f"The RayCluster {keeping[0].name} is kept until {until:%H:%M:%S} UTC, to look into the failure."
    elif observed.clusters or observed.pods:
        reason, message, look = "Deleting", "What is left of the cluster goes away.", draft.now + _NET
    else:
        holds, reason, message = True, "NothingLeft", "No RayCluster and no pod is left."
    draft = draft.say(ConditionType.CLEANED_UP, holds, reason, message)
    return Transition(draft, step.before, (*step.after, *deletions), earliest(step.look, look))


def _in_time(step: Transition, spec: Spec) -> Transition:
    """Looks again when the next attempt or the resource's own end is due: nobody else tells of those."""
    status = step.draft.status
    if spec.suspend and not status.completion_time:
        return step
    due = deadlines.expiry(spec, status) if status.completion_time else deadlines.retry_time(status)
    return replace(step, look=earliest(step.look, due)) if due and due > step.draft.now else step


def _decision(sampling: DDPMSampling, step: Transition, now: datetime) -> Decision:
    old = sampling.status
    # What is written is what will be read: a status that its own schema refuses is a fault of this program.
    new = Status.from_document(step.draft.status.to_document())
    look = step.look
    written: tuple[Action, ...] = ()
    held_until = _held_until(old, new)
    if held_until and now < held_until:
        look = earliest(look, held_until)
    elif new != old:
        written = (WriteStatus(new, sampling.metadata.resource_version), *events(old, new))
    pause = max(look - now, _SHORTEST_PAUSE) if look else None
    return Decision((*step.before, *written, *step.after), pause)


def _held_until(old: Status | None, new: Status) -> datetime | None:
    """Until when a status that says nothing new but how far it is can wait; None if it cannot."""
    if old is None or old.progress is None or old.progress.last_update_time is None or new == old:
        return None
    alike = _without_figures(old) == _without_figures(new)
    return old.progress.last_update_time + LEAST_BETWEEN_WRITES if alike else None


def _without_figures(status: Status) -> Status:
    running = condition(status, ConditionType.RUNNING)
    others = tuple(it for it in status.conditions if it is not running)
    spoken = (running.model_copy(update={"message": ""}),) if running else ()
    total = status.progress.total if status.progress else 0
    return status.model_copy(update={"progress": progress(0, total), "conditions": (*others, *spoken)})
