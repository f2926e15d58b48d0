"""An active attempt: creates its objects, waits for its pods, and follows its driver until the attempt ends."""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import ConditionType, Phase
from ddpm_operator.api.conditions import condition
from ddpm_operator.reconcile import deadlines, kueue, other_hardware, quota
from ddpm_operator.reconcile.action_failures import describe_first
from ddpm_operator.reconcile.actions import Action, CreateCluster, CreateNetworkPolicy, CreateSecret, EnsureClaim
from ddpm_operator.reconcile.assessment import Assessment
from ddpm_operator.reconcile.attempts import fail, reject, rendering
from ddpm_operator.reconcile.driver_end import completed, driver_ended
from ddpm_operator.reconcile.driver_progress import follow_driver, record_progress
from ddpm_operator.reconcile.growth import update_plan
from ddpm_operator.reconcile.head_failure import deleted_cluster, head_pods
from ddpm_operator.reconcile.images import pinned_image
from ddpm_operator.reconcile.observed import Observed, ObservedCluster
from ddpm_operator.reconcile.polling import CREATION_RESYNC, RESYNC
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition, earliest
from ddpm_operator.text import count


def active_attempt(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> Transition:
    """Returns the next step of an attempt that has begun and not ended."""
    spec, cluster = observed.sampling.spec, observed.cluster
    draft = update_plan(spec, draft)
    if cluster is None:
        return _without_cluster(observed, assessment, draft)
    draft = _record_dashboard(draft, cluster, observed.sampling.metadata.namespace)
    if cluster.suspended:
        return Transition(kueue.queued(draft, spec))
    if assessment.was_suspended:
        draft = kueue.resumed(draft, spec)
    if assessment.waits_for_previous_pods:
        # If the operator died before creating the Secret, the previous head still waits for it.
        missing = _missing_objects(observed, draft, cluster)
        queued = kueue.queued_behind_previous_pods(draft, spec)
        return Transition(queued, after_write=missing, requeue_at=draft.now + CREATION_RESYNC)
    full = assessment.full_quota
    if full and observed.cluster_pods and observed.blocked_by:
        yielded = quota.yield_to_other(draft, spec, observed.blocked_by)
        return Transition(yielded, requeue_at=draft.now + RESYNC)
    if full:
        missing = _missing_objects(observed, draft, cluster)
        queued = quota.queued(draft, spec, full)
        return Transition(queued, after_write=missing, requeue_at=draft.now + RESYNC)
    draft = record_progress(observed, assessment, _admit(observed, draft))
    draft = _record_head(observed, assessment, draft)
    deadline = _deadline(observed, assessment, draft)
    ended = _end(observed, assessment, draft, deadline)
    return ended or _continue(observed, assessment, draft, cluster, deadline)


def create(observed: Observed, draft: StatusBuilder) -> tuple[Action, ...]:
    """Returns the actions that create an attempt's RayCluster, and its claim if the output needs one."""
    attempt = rendering(observed, draft)
    own_claim = observed.sampling.spec.output.uri is None and observed.claim is None
    return (*((EnsureClaim(attempt),) if own_claim else ()), CreateCluster(attempt))


def _without_cluster(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> Transition:
    """Creates the RayCluster, unless it existed before, and waits for what delays its creation."""
    spec, recorded = observed.sampling.spec, draft.status.cluster
    if recorded and recorded.was_seen:
        return Transition(fail(draft, spec, deleted_cluster(recorded)))
    failure = assessment.action_failure
    problem = failure.problem if failure else None
    hint = failure.hint if failure else ""
    if problem and problem.certain:
        return Transition(reject(draft, spec, problem, hint))
    # The RayCluster may have been deleted before the operator saw it. Until it is gone, a create would find it.
    cleaned_up = assessment.cleaned_up
    if cleaned_up and problem and quota.is_full(problem):
        queued = quota.queued(draft, spec, problem)
        return Transition(queued, after_write=create(observed, draft), requeue_at=draft.now + RESYNC)
    draft = _admit(observed, draft) if draft.status.phase is Phase.QUEUED else draft
    deadline = assessment.startup_deadline
    error = describe_first(observed.action_errors)
    if deadline and draft.now >= deadline:
        missed = deadlines.missed_startup_deadline(spec, problem, "The RayCluster could not be created", error)
        return Transition(fail(draft, spec, missed, hint))
    if not cleaned_up:
        message = "The RayCluster was deleted, and will be created again once its pods are gone."
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, "WaitingForCleanUp", message)
        return Transition(draft, requeue_at=earliest(draft.now + RESYNC, deadline))
    if problem:
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, problem.reason, problem.message)
    elif error:
        draft = draft.set_condition(ConditionType.CLUSTER_READY, False, "Creating", error)
    requeue_at = earliest(draft.now + CREATION_RESYNC, deadline)
    return Transition(draft, after_write=create(observed, draft), requeue_at=requeue_at)


def _record_dashboard(draft: StatusBuilder, cluster: ObservedCluster, namespace: str) -> StatusBuilder:
    """Records the dashboard's address at the first sight of the RayCluster, see `Cluster.was_seen`."""
    recorded = draft.status.cluster
    if recorded is None or recorded.was_seen:
        return draft
    return draft.set_cluster(dashboard=f"http://{cluster.name}-head-svc.{namespace}.svc:8265")


def _missing_objects(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> tuple[Action, ...]:
    """Returns the actions that create the objects an existing cluster still needs, in their order.

    A running head already has them: it cannot start without the Secret, which is created last. Repeating the requests
    after an operator restart could hit a newer policy or quota.
    """
    if observed.head and observed.head.phase == "Running":
        return ()
    attempt = rendering(observed, draft)
    policy = () if cluster.has_network_policy else (CreateNetworkPolicy(attempt, cluster.uid),)
    secret = () if cluster.has_secret else (CreateSecret(attempt, cluster.uid),)
    return (*policy, *secret)


def _admit(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    """Records the attempt's admission and the sampling's startTime, unless they are recorded.

    The startup deadline counts from the admission. Only an attempt that Kueue or a full quota has delayed is admitted
    here. Others are admitted as they begin.
    """
    recorded, status = draft.status.cluster, draft.status
    if recorded is None:
        return draft
    # With a queue, Kueue decides only once the RayCluster exists.
    if observed.cluster or not observed.sampling.spec.queue_name:
        draft = draft.set(start_time=status.start_time or draft.now)
    if recorded.start_time:
        return draft
    return draft.set(phase=Phase.STARTING).set_cluster(start_time=draft.now, head_uid=None)


def _record_head(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> StatusBuilder:
    """Records which pod is the head, when it was scheduled, and its image."""
    recorded, uid = draft.status.cluster, assessment.head_uid
    draft = draft.set_cluster(head_uid=uid)
    head = next((pod for pod in head_pods(observed) if pod.uid == uid), None)
    if recorded is None or head is None:
        return draft
    scheduled = recorded.scheduled_time
    if scheduled is None and head.scheduled:
        # A head is not charged while it waits for the attempt's admission.
        scheduled = max(head.scheduled.replace(microsecond=0), recorded.start_time or head.scheduled)
    draft = draft.set_cluster(scheduled_time=scheduled)
    if draft.status.image is None:
        draft = draft.set(image=pinned_image(head, rendering(observed, draft).image))
    return draft


def _deadline(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> datetime | None:
    """Returns the deadline in force: the startup deadline, or activeDeadlineSeconds once the attempt is Running."""
    if draft.holds(ConditionType.RUNNING):
        return deadlines.active_deadline(observed.sampling.spec, draft.status, draft.now)
    return assessment.startup_deadline


def _end(
    observed: Observed, assessment: Assessment, draft: StatusBuilder, deadline: datetime | None
) -> Transition | None:
    """Returns the attempt's end, if it has come: by success, by a failure, or by a deadline."""
    spec = observed.sampling.spec
    complete = completed(observed, assessment, draft)
    if complete:
        return complete
    lost = assessment.head_failure or assessment.unreachable
    if lost:
        return Transition(fail(draft, spec, lost))
    ended = driver_ended(observed, assessment, draft)
    if ended:
        return Transition(ended)
    failure, problem = assessment.action_failure, assessment.problem
    running = draft.holds(ConditionType.RUNNING)
    if failure and failure.problem.certain and not running:
        return Transition(reject(draft, spec, failure.problem, failure.hint))
    if problem and problem.certain and not running:
        return Transition(fail(draft, spec, problem))
    missed = deadline is not None and draft.now >= deadline
    allowed = spec.resources.allow_mixed_hardware
    if not running and (missed or allowed) and other_hardware.keeps_out(observed, draft.status):
        return Transition(other_hardware.wait(draft, spec))
    if not missed:
        return None
    if running:
        return Transition(fail(draft, spec, deadlines.exceeded_active_deadline(spec)))
    progress = _startup_progress(observed, draft, problem)
    what = "The attempt did not begin sampling"
    return Transition(fail(draft, spec, deadlines.missed_startup_deadline(spec, problem, what, progress)))


def _continue(
    observed: Observed,
    assessment: Assessment,
    draft: StatusBuilder,
    cluster: ObservedCluster,
    deadline: datetime | None,
) -> Transition:
    """Completes the attempt's objects, follows its driver, and schedules the next reconcile."""
    ready, reason, message = _readiness(observed, draft, assessment.problem)
    draft = draft.set_condition(ConditionType.CLUSTER_READY, ready, reason, message)
    missing, head = _missing_objects(observed, draft, cluster), observed.pollable_head
    if head is None:
        return Transition(draft, after_write=missing, requeue_at=earliest(draft.now + RESYNC, deadline))
    driver = follow_driver(observed, assessment, draft, head)
    return Transition(
        driver.draft, driver.before_write, (*missing, *driver.after_write), earliest(driver.requeue_at, deadline)
    )


def _readiness(observed: Observed, draft: StatusBuilder, problem: Problem | None) -> tuple[bool, str, str]:
    """Returns status, reason and message of the condition ClusterReady."""
    head, plan = observed.head, draft.status.plan
    wanted = plan.workers if plan else 0
    ready = sum(pod.role == "worker" and pod.ready and not pod.deleted for pod in observed.cluster_pods)
    if head and head.ready and ready >= wanted:
        subject = f"The head and {count(wanted, 'worker')} are" if wanted else "The head is"
        return True, "Ready", f"{subject} ready."
    if problem:
        return False, str(problem.reason), problem.message
    if head is None:
        return False, "Starting", "KubeRay has not created the head pod yet."
    if not head.scheduled:
        return False, "Starting", f"The head pod {head.name} is not scheduled to a node yet."
    if not head.ready:
        return False, "Starting", f"The head pod {head.name} is starting."
    return False, "WorkersStarting", f"The head and {ready} of {count(wanted, 'worker')} are ready."


def _startup_progress(observed: Observed, draft: StatusBuilder, problem: Problem | None) -> str:
    """Returns how far the start has come: the driver's own message if all pods are ready, else that about the pods."""
    running = condition(draft.status, ConditionType.RUNNING)
    from_driver = running.message if running and running.reason == "Starting" else ""
    ready, _, message = _readiness(observed, draft, problem)
    return from_driver if ready and from_driver else message
