"""An attempt under way: its cluster is made, its driver asked for the samples and listened to, until one end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from ddpm_operator.api import ConditionType, FailureReason, Phase, Spec
from ddpm_operator.planning.sizing import head_size
from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.action_failures import ActionFailure, action_failure, failing
from ddpm_operator.reconcile.actions import Action, CreateCluster, CreateNetworkPolicy, CreateSecret, EnsureClaim
from ddpm_operator.reconcile.attempts import digest_of, fail, nothing_left, pause, reject, rendering
from ddpm_operator.reconcile.diagnosis import Problem, head_end, pod_problem
from ddpm_operator.reconcile.driver_status import driver_end, follow_driver, record_driver_status
from ddpm_operator.reconcile.growth import update_plan
from ddpm_operator.reconcile.observed import HeadUnreachable, Observed, ObservedCluster
from ddpm_operator.reconcile.quota import has_begun, judged, without_head, yield_to_other
from ddpm_operator.reconcile.status_builder import StatusBuilder, condition
from ddpm_operator.reconcile.suspension import former_head, heads, waits_for_former_pods, was_suspended
from ddpm_operator.reconcile.transition import Transition, earliest
from ddpm_operator.text import count, duration

# Looks that only make sure: what changes in Kubernetes is heard of at once.
_SOON = timedelta(seconds=5)
_NET = timedelta(seconds=10)


def active_attempt(observed: Observed, draft: StatusBuilder) -> Transition:
    """The next step of an attempt that has begun and not ended."""
    spec, cluster = observed.sampling.spec, observed.cluster
    draft = update_plan(spec, draft)
    if cluster is None:
        return _without_cluster(observed, draft)
    draft = _seen(draft, cluster, observed.sampling.metadata.namespace)
    if cluster.suspended:
        where = f"the queue {spec.queue_name}" if spec.queue_name else "whoever suspended it"
        return Transition(_queued(draft, spec, "Queued", f"The RayCluster waits for {where}."))
    if was_suspended(observed, draft, cluster):
        draft = pause(draft, spec, "Queued", "The RayCluster was suspended, and goes on.")
    if waits_for_former_pods(observed, draft):
        why = "The RayCluster goes on as soon as its pods from before it was suspended are gone."
        # A half-made cluster's head was never taken away, and cannot start before it has its Secret.
        lacking = _lacking(observed, draft, cluster)
        return Transition(_queued(draft, spec, "Queued", why), after=lacking, look=draft.now + _SOON)
    full = _full_quota(observed, draft, cluster)
    if full and observed.cluster_pods and observed.ahead:
        return Transition(yield_to_other(draft, spec, observed.ahead), look=draft.now + _NET)
    if full:
        queued = without_head(_queued(draft, spec, full.reason, full.message))
        return Transition(queued, after=_lacking(observed, draft, cluster), look=draft.now + _NET)
    draft = record_driver_status(observed, _admitted(observed, draft))
    draft = _with_head(observed, draft)
    return _ended(observed, draft, cluster) or _going_on(observed, draft, cluster)


def create(observed: Observed, draft: StatusBuilder) -> tuple[Action, ...]:
    """What brings an attempt's cluster about."""
    attempt = rendering(observed, draft)
    own_claim = observed.sampling.spec.output.uri is None and observed.claim is None
    return (*((EnsureClaim(attempt),) if own_claim else ()), CreateCluster(attempt))


def _without_cluster(observed: Observed, draft: StatusBuilder) -> Transition:
    spec, cluster = observed.sampling.spec, draft.status.cluster
    if cluster and cluster.dashboard:
        message = f"The RayCluster {cluster.name} was deleted, and not by the operator."
        return Transition(fail(draft, spec, Problem(FailureReason.HEAD_LOST, message, certain=True)))
    refused = _refusal(observed, draft)
    if refused and refused.trouble.certain:
        return Transition(reject(draft, spec, refused.trouble, refused.hint))
    # One that somebody deleted before it was seen: a create would find it, as long as it goes.
    cleared = nothing_left(observed, draft.now)
    if cleared and refused and refused.trouble.reason is FailureReason.QUOTA_EXCEEDED:
        queued = _queued(draft, spec, refused.trouble.reason, refused.trouble.message)
        return Transition(queued, after=create(observed, draft), look=draft.now + _NET)
    draft = _admitted(observed, draft) if draft.status.phase is Phase.QUEUED else draft
    deadline = deadlines.startup_deadline(spec, draft.status)
    if deadline and draft.now >= deadline:
        last = failing(observed.faults)
        late = _too_late(spec, refused.trouble if refused else None, "The RayCluster could not be created", last)
        return Transition(fail(draft, spec, late, refused.hint if refused else ""))
    if not cleared:
        why = "The RayCluster is made again as soon as nothing is left of one that somebody deleted."
        draft = draft.say(ConditionType.CLUSTER_READY, False, "WaitingForCleanUp", why)
        return Transition(draft, look=earliest(draft.now + _NET, deadline))
    if refused:
        draft = draft.say(ConditionType.CLUSTER_READY, False, refused.trouble.reason, refused.trouble.message)
    elif observed.faults:
        draft = draft.say(ConditionType.CLUSTER_READY, False, "Creating", failing(observed.faults))
    return Transition(draft, after=create(observed, draft), look=earliest(draft.now + _SOON, deadline))


def _seen(draft: StatusBuilder, cluster: ObservedCluster, namespace: str) -> StatusBuilder:
    known = draft.status.cluster
    if known is None or known.dashboard:
        return draft
    dashboard = f"http://{cluster.name}-head-svc.{namespace}.svc:8265"
    return draft.put(cluster=known.model_copy(update={"dashboard": dashboard}))


def _queued(draft: StatusBuilder, spec: Spec, reason: str, why: str) -> StatusBuilder:
    """Kueue has not admitted the cluster, or takes its pods back, or a quota is full just now.

    Samples that are done stay done.
    """
    return pause(draft.put(phase=Phase.QUEUED), spec, reason, why)


def _full_quota(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> Problem | None:
    """What keeps all of the cluster's pods out, or all of its workers, as long as others fill the quota.

    With any one worker the driver begins, and takes the others as they come.
    """
    if has_begun(observed, draft):
        return None
    found = _trouble(observed, draft, cluster)
    return found if found and found.reason is FailureReason.QUOTA_EXCEEDED and not found.certain else None


def _lacking(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> tuple[Action, ...]:
    """What a cluster that is there still lacks, in the order in which it gets it.

    A head that runs has both: it cannot start without its Secret, which comes last. To ask again what an operator
    before this one has done may meet a policy, or a quota, that is new since.
    """
    if observed.head and observed.head.phase == "Running":
        return ()
    attempt = rendering(observed, draft)
    policy = () if cluster.has_network_policy else (CreateNetworkPolicy(attempt, cluster.uid),)
    secret = () if cluster.has_secret else (CreateSecret(attempt, cluster.uid),)
    return (*policy, *secret)


def _admitted(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    known, status = draft.status.cluster, draft.status
    if known is None:
        return draft
    # Before the queue has had its say, nobody is admitted.
    if observed.cluster or not observed.sampling.spec.queue_name:
        draft = draft.put(start_time=status.start_time or draft.now)
    if known.start_time:
        return draft
    # A head from before, as far as it is there still, is the one that goes on.
    former = former_head(observed, draft)
    admitted = {"start_time": draft.now, "head_uid": former.uid if former and not former.deleted else None}
    return draft.put(phase=Phase.STARTING, cluster=known.model_copy(update=admitted))


def _with_head(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    """Takes down which pod is the head, when it got a node, and its image."""
    known = draft.status.cluster
    # One that was taken away before it was anybody's leaves its place to the next.
    there = [pod for pod in heads(observed) if not pod.deleted or (known and pod.uid == known.head_uid)]
    if known is None or not there:
        return draft
    uid = known.head_uid or (observed.head or there[0]).uid
    head = next((pod for pod in there if pod.uid == uid), None)
    if head is None:
        return draft
    scheduled = known.scheduled_time
    if scheduled is None and head.scheduled:
        # One that was there before the admission has waited at nobody's cost.
        scheduled = max(head.scheduled.replace(microsecond=0), known.start_time or head.scheduled)
    draft = draft.put(cluster=known.model_copy(update={"head_uid": uid, "scheduled_time": scheduled}))
    if draft.status.image is None:
        draft = draft.put(image=digest_of(head, rendering(observed, draft).image))
    return draft


def _ended(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> Transition | None:
    """The attempt's end, if it has come: well, or by what is known to be wrong, or by the clock."""
    spec, status = observed.sampling.spec, draft.status
    ended = driver_end(observed, draft)
    if ended and ended.draft.holds(ConditionType.COMPLETE):
        return ended
    uid = status.cluster.head_uid if status.cluster else None
    memory = head_size(spec, status.plan).memory if status.plan else spec.resources.head.memory
    known = (*heads(observed), *((observed.departed,) if observed.departed else ()))
    lost = head_end(cluster.name, known, uid, memory) if uid else None
    if lost:
        return Transition(fail(draft, spec, lost))
    if ended:
        return ended
    refused = _refusal(observed, draft)
    if refused and refused.trouble.certain and not draft.holds(ConditionType.RUNNING):
        return Transition(reject(draft, spec, refused.trouble, refused.hint))
    found = _trouble(observed, draft, cluster)
    if found and found.certain and not draft.holds(ConditionType.RUNNING):
        return Transition(fail(draft, spec, found))
    late = _overdue(observed, draft, cluster, found)
    return Transition(fail(draft, spec, late)) if late else None


def _going_on(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> Transition:
    spec = observed.sampling.spec
    draft = _readiness(observed, draft, _trouble(observed, draft, cluster))
    missing = _lacking(observed, draft, cluster)
    step = follow_driver(observed, draft) if observed.head_to_ask else Transition(draft, look=draft.now + _NET)
    status = step.draft.status
    deadline = deadlines.active_deadline(spec, status, draft.now)
    if not step.draft.holds(ConditionType.RUNNING):
        deadline = _startup_deadline(observed, step.draft)
    return Transition(step.draft, step.before, (*missing, *step.after), earliest(step.look, deadline))


def _readiness(observed: Observed, draft: StatusBuilder, found: Problem | None) -> StatusBuilder:
    ready, reason, message = _stand(observed, draft, found)
    return draft.say(ConditionType.CLUSTER_READY, ready, reason, message)


def _stand(observed: Observed, draft: StatusBuilder, found: Problem | None) -> tuple[bool, str, str]:
    """Whether all pods are ready, a word for it, and a sentence."""
    head, plan = observed.head, draft.status.plan
    wanted = plan.workers if plan else 0
    ready = sum(pod.role == "worker" and pod.ready and not pod.deleted for pod in observed.cluster_pods)
    if head and head.ready and ready >= wanted:
        who = f"The head and {count(wanted, 'worker')} are" if wanted else "The head is"
        return True, "Ready", f"{who} ready."
    if found:
        return False, str(found.reason), found.message
    if head is None:
        return False, "Starting", "KubeRay has yet to create the head pod."
    if not head.scheduled:
        return False, "Starting", f"The head pod {head.name} has no node yet."
    if not head.ready:
        return False, "Starting", f"The head pod {head.name} starts."
    return False, "WorkersStarting", f"The head is ready, and {ready} of {count(wanted, 'worker')}."


def _trouble(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> Problem | None:
    admitted = draft.status.cluster.start_time if draft.status.cluster else None
    found = pod_problem(cluster, observed.cluster_pods, admitted, draft.now)
    if found:
        return judged(found, observed.sampling.spec, draft.status.plan)
    if _unheeded(observed, draft, cluster):
        message = f"The RayCluster {cluster.name} is there, and nobody makes pods of it: KubeRay does not run."
        return Problem(FailureReason.KUBERAY_MISSING, message, certain=False)
    refused = _refusal(observed, draft)
    return refused.trouble if refused else None


def _unheeded(observed: Observed, draft: StatusBuilder, cluster: ObservedCluster) -> bool:
    """KubeRay has had the time to act on a cluster, and has not done so."""
    admitted = draft.status.cluster.start_time if draft.status.cluster else None
    if cluster.heeded or observed.cluster_pods or admitted is None:
        return False
    # The API server's clock may go ahead of this one.
    begun = max(admitted, cluster.created) if cluster.created <= draft.now else admitted
    return draft.now >= begun + deadlines.GRACE


def _refusal(observed: Observed, draft: StatusBuilder) -> ActionFailure | None:
    found = action_failure(observed.faults)
    return found and replace(found, trouble=judged(found.trouble, observed.sampling.spec, draft.status.plan))


def _overdue(
    observed: Observed, draft: StatusBuilder, cluster: ObservedCluster, found: Problem | None
) -> Problem | None:
    """The deadline that the attempt has missed."""
    spec, status = observed.sampling.spec, draft.status
    if draft.holds(ConditionType.RUNNING):
        end = deadlines.active_deadline(spec, status, draft.now)
        if end is None or draft.now < end:
            return None
        ran = duration(spec.active_deadline_seconds or 0)
        return Problem(FailureReason.DEADLINE_EXCEEDED, f"It has run for {ran}, as long as it may.", certain=True)
    deadline = _startup_deadline(observed, draft)
    if deadline is None or draft.now < deadline:
        return None
    running = condition(status, ConditionType.RUNNING)
    spoken = running.message if running and running.reason == "Starting" else ""
    ready, _, stand = _stand(observed, draft, found)
    return _too_late(spec, found, "The attempt has not begun to sample", spoken if ready and spoken else stand)


def _startup_deadline(observed: Observed, draft: StatusBuilder) -> datetime | None:
    """When the attempt must have begun to sample.

    Nobody knows of a head that has just missed an answer whether it has: an operator that was away looks for the
    first time.
    """
    deadline = deadlines.startup_deadline(observed.sampling.spec, draft.status)
    if deadline and isinstance(observed.driver, HeadUnreachable):
        return max(deadline, observed.driver.since + deadlines.GRACE)
    return deadline


def _too_late(spec: Spec, found: Problem | None, what: str, stand: str = "") -> Problem:
    """The deadline of the start is missed.

    Args:
        found: what kept it, if that is known.
        stand: how far it has come, in a sentence; "" for not at all.
    """
    words = f"{what} within {duration(spec.startup_deadline_seconds)} of its admission."
    if found:
        return replace(found, message=f"{found.message} {words}")
    return Problem(FailureReason.STARTUP_DEADLINE_EXCEEDED, f"{words} {stand}".rstrip(), certain=True)
