"""The conclusions of one reconcile pass, computed once from what was observed and handed on to every step of the pass.

An `Assessment` depends on the observation and on the previous status only, never on what the pass has already decided.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ddpm_operator.api import ConditionType, Phase, Status
from ddpm_operator.api.conditions import holds
from ddpm_operator.planning.sizing import head_size
from ddpm_operator.reconcile import kuberay, kueue
from ddpm_operator.reconcile.action_failures import ActionFailure, action_failure
from ddpm_operator.reconcile.attempts import is_cleaned_up
from ddpm_operator.reconcile.deadlines import startup_deadline
from ddpm_operator.reconcile.diagnosis import pod_problem
from ddpm_operator.reconcile.driver_state import DriverState, driver_state
from ddpm_operator.reconcile.head_failure import bound_head, head_failure, unreachable_head
from ddpm_operator.reconcile.observed import HeadResponse, Observed
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.quota import check_quota, full_quota


@dataclass(frozen=True)
class Assessment:
    """What a reconcile pass concludes from an observation.

    The attributes from `was_suspended` on describe the active attempt, and keep their defaults if there is none.
    Attributes that depend on its admission assume that this pass admits the attempt.

    Attributes:
        cleaned_up: no cluster and no pod remains that could conflict with a next attempt.
        action_failure: an action of the previous pass that was rejected.
        was_suspended: its RayCluster was suspended and resumed between two reconciles.
        waits_for_previous_pods: its RayCluster was resumed, and its previous head still exists.
        head_uid: the pod that is its head from now on; None while there is none.
        head_failure: why its head is lost.
        unreachable: the head has not answered for too long.
        driver: the driver's state; None if the head was not polled or did not answer.
        pod_problem: what keeps its pods from starting, as Kubernetes and KubeRay report it.
        problem: `pod_problem`, or that KubeRay does not run, or the problem of `action_failure`.
        full_quota: `problem`, if its cause is a quota that other pods fill and the attempt waits for it.
        startup_deadline: when it must have begun sampling; None if there is no attempt, or if the attempt has no
            RayCluster and its clocks stand still.
    """

    cleaned_up: bool
    action_failure: ActionFailure | None
    was_suspended: bool = False
    waits_for_previous_pods: bool = False
    head_uid: str | None = None
    head_failure: Problem | None = None
    unreachable: Problem | None = None
    driver: DriverState | None = None
    pod_problem: Problem | None = None
    problem: Problem | None = None
    full_quota: Problem | None = None
    startup_deadline: datetime | None = None


def assess(observed: Observed, status: Status, now: datetime) -> Assessment:
    """Returns the conclusions of a reconcile pass.

    Args:
        status: the previous status, or the first one of a new sampling.
    """
    spec, plan, recorded, cluster = observed.sampling.spec, status.plan, status.cluster, observed.cluster
    cleaned_up = is_cleaned_up(observed, now)
    rejected = action_failure(observed.action_errors, spec, plan)
    if recorded is None:
        return Assessment(cleaned_up, rejected)
    if cluster is None:
        # An attempt without a RayCluster is Queued only because of a full quota. It counts as admitted as soon as there
        # is room.
        admitted = recorded.start_time or (now if status.phase is Phase.QUEUED else None)
        deadline = startup_deadline(spec, admitted, observed.head_poll)
        return Assessment(cleaned_up, rejected, startup_deadline=deadline)
    was_suspended = kueue.was_suspended(observed, cluster, recorded)
    admitted = None if was_suspended else recorded.start_time
    running = holds(status, ConditionType.RUNNING) and not was_suspended
    found = pod_problem(cluster, observed.cluster_pods, admitted, now)
    found = check_quota(found, spec, plan) if found else None
    problem = found or kuberay.not_running(observed, cluster, admitted, now)
    if problem is None and rejected:
        problem = rejected.problem
    head_uid = bound_head(observed, recorded, admitted)
    memory = head_size(spec, plan).memory if plan else spec.resources.head.memory
    poll = observed.head_poll
    return Assessment(
        cleaned_up,
        rejected,
        was_suspended=was_suspended,
        waits_for_previous_pods=kueue.waits_for_previous_pods(observed, recorded, admitted, now),
        head_uid=head_uid,
        head_failure=head_failure(observed, recorded, head_uid, memory),
        unreachable=unreachable_head(poll, now),
        driver=driver_state(poll, recorded.name, spec.samples) if isinstance(poll, HeadResponse) else None,
        pod_problem=found,
        problem=problem,
        full_quota=full_quota(observed, status, problem, running=running),
        startup_deadline=startup_deadline(spec, admitted or now, poll),
    )
