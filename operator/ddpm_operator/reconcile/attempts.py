"""Begins, pauses and ends an attempt in the status. Every RayCluster belongs to one numbered attempt.

`status.cluster` is set exactly as long as an attempt is active. What remains of its RayCluster afterwards no longer
belongs to the attempt, and is deleted by `ddpm_operator.reconcile.cleanup`.
"""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import ConditionType, DDPMSampling, Failure, FailureReason, Phase, Plan, Spec, Status
from ddpm_operator.api.conditions import condition
from ddpm_operator.api.quantity import parse
from ddpm_operator.api.status import Cluster as ClusterStatus
from ddpm_operator.api.status import Cost
from ddpm_operator.manifests.naming import claim_name, cluster_name
from ddpm_operator.manifests.render import Attempt
from ddpm_operator.planning.sizing import head_size, worker_size
from ddpm_operator.reconcile.deadlines import STUCK_POD_TIMEOUT, running_seconds
from ddpm_operator.reconcile.images import requested_image
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.placement import constrains
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.progress import stopped
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.text import MAX_HINT_LENGTH, MAX_MESSAGE_LENGTH, as_sentence, clip, count, log_tail, redact

# Another attempt would fail for the same reason.
FINAL_REASONS = frozenset(
    {
        FailureReason.INVALID_SPEC,
        FailureReason.MODEL_NOT_FOUND,
        FailureReason.MODEL_REJECTED,
        FailureReason.REFERENCE_NOT_FOUND,
        FailureReason.IMAGE_PULL_FAILED,
        FailureReason.POD_REJECTED,
        FailureReason.UNSCHEDULABLE,
        FailureReason.QUOTA_EXCEEDED,
        FailureReason.KUBERAY_MISSING,
        FailureReason.DEADLINE_EXCEEDED,
        FailureReason.OUTPUT_CONFLICT,
    }
)


def begin(draft: StatusBuilder, sampling: DDPMSampling, plan: Plan) -> StatusBuilder:
    """Begins the next attempt in the status, before any of its objects exists."""
    spec, status = sampling.spec, draft.status
    number = (status.attempt or 0) + 1
    # Kueue suspends a cluster only once it exists. Until then the startup deadline counts, so that the attempt ends.
    cluster = ClusterStatus(
        name=cluster_name(sampling.metadata, number),
        start_time=draft.now,
        constrained=constrains(spec, status) or None,
        excluded_nodes=len(status.placement.excluded_nodes) if status.placement else None,
        repair=spec.repair if wants_repair(spec, status) else None,
    )
    draft = draft.set(
        phase=Phase.STARTING,
        attempt=number,
        plan=plan,
        cluster=cluster,
        failure=None,
        # Before the first attempt, status.image only showed which image it would use.
        image=status.image if status.attempt else None,
        start_time=status.start_time or (None if spec.queue_name else draft.now),
    )
    draft = draft.set_condition(ConditionType.ACCEPTED, True, "Planned", plan_summary(spec, plan))
    message = f"The RayCluster {cluster.name} is created."
    return draft.set_condition(ConditionType.CLUSTER_READY, False, "Creating", message)


def pause(draft: StatusBuilder, spec: Spec, reason: str, message: str) -> StatusBuilder:
    """Records that the attempt has no pods any more: adds up its running time and cost, and stops its clocks."""
    status = draft.status
    draft = draft.set(
        running_seconds=running_seconds(status, draft.now),
        cost=_cost(draft, spec),
        progress=stopped(status.progress) if status.progress else None,
    )
    draft = draft.set_cluster(start_time=None, scheduled_time=None)
    draft = draft.set_condition(ConditionType.RUNNING, False, reason, message)
    return draft.set_condition(ConditionType.CLUSTER_READY, False, reason, message)


def end(draft: StatusBuilder, spec: Spec, reason: str, message: str) -> StatusBuilder:
    """Ends the attempt, for whatever reason. Its cluster is no longer in use."""
    return pause(draft, spec, reason, message).set(cluster=None)


def end_queued(draft: StatusBuilder, spec: Spec, reason: str, message: str) -> StatusBuilder:
    """Ends an attempt that has to wait for something and does not count: the sampling is Queued for the next one."""
    return end(draft, spec, reason, message).set(phase=Phase.QUEUED)


def waits_for(status: Status, reason: str) -> bool:
    """Returns whether the last attempt ended by `end_queued` with this reason, and none has begun since."""
    ready = condition(status, ConditionType.CLUSTER_READY)
    return status.cluster is None and ready is not None and ready.reason == reason


def wants_repair(spec: Spec, status: Status) -> bool:
    """Returns whether spec.repair was raised since all stored files were last checked."""
    return spec.repair > (status.repaired or 0)


def fail(draft: StatusBuilder, spec: Spec, problem: Problem, hint: str = "", log: str = "") -> StatusBuilder:
    """Ends the attempt with a failure. The sampling fails too if another attempt is not allowed or would be in vain.

    Args:
        hint: what to do about it; "" for the hint of the problem's reason.
        log: the end of the driver's log.
    """
    failed = (draft.status.failed_attempts or 0) + 1
    last = _is_final(problem) or failed > spec.backoff_limit
    number = draft.status.attempt or 0
    draft = end(draft, spec, "AttemptFailed", f"Attempt {number} failed ({problem.reason}).")
    failure = _failure(draft, spec, problem, hint, log)
    draft = draft.set(failed_attempts=failed, failure=failure)
    return _finish_failed(draft, failure) if last else draft.set(phase=Phase.PENDING)


def _is_final(problem: Problem) -> bool:
    """Returns whether another attempt would fail too. A quota that other pods fill may have room by then."""
    return problem.reason in FINAL_REASONS and (problem.certain or problem.reason is not FailureReason.QUOTA_EXCEEDED)


def reject(draft: StatusBuilder, spec: Spec, problem: Problem, hint: str = "") -> StatusBuilder:
    """Ends a sampling whose spec passed the CRD's validation, but cannot be run in this cluster."""
    draft = end(draft, spec, "NotAccepted", "The sampling was not accepted.")
    failure = _failure(draft, spec, problem, hint, "")
    draft = draft.set(failure=failure)
    draft = draft.set_condition(ConditionType.ACCEPTED, False, problem.reason, problem.message)
    return _finish_failed(draft, failure)


def is_cleaned_up(observed: Observed, now: datetime) -> bool:
    """Returns whether no cluster and no pod remains that could conflict with the next attempt."""
    stuck = now - STUCK_POD_TIMEOUT
    return not observed.clusters and all(pod.deleted and pod.deleted <= stuck for pod in observed.pods)


def rendering(observed: Observed, draft: StatusBuilder) -> Attempt:
    """Returns the active attempt in the form that the templates and the job document take.

    Raises:
        ValueError: if no attempt has begun.
    """
    sampling, status = observed.sampling, draft.status
    if status.plan is None or status.attempt is None:
        raise ValueError("no attempt has begun")
    return Attempt(
        sampling=sampling.metadata,
        number=status.attempt,
        spec=sampling.spec,
        plan=status.plan,
        image=requested_image(observed, status),
        ray_version=observed.image.ray_version,
        shared_output=_has_shared_output(observed),
        pull_policy=observed.image.pull_policy,
        cloud_identity=observed.limits.cloud_identity,
        placement=None if sampling.spec.resources.allow_mixed_hardware else status.placement,
        repairs=status.cluster is not None and status.cluster.repair is not None,
    )


def output_uri(sampling: DDPMSampling) -> str:
    """Returns the URI of the output, for users and for `kubectl ddpm fetch`."""
    return sampling.spec.output.uri or f"pvc://{claim_name(sampling.metadata)}"


def plan_summary(spec: Spec, plan: Plan) -> str:
    """Returns a sentence on what is sampled, and on how many pods."""
    workers = count(plan.workers, "worker") if plan.workers else "the head alone"
    gpus = f" with {count(plan.gpus, 'GPU')} in all" if plan.gpus else ""
    return f"{count(spec.samples, 'sample')} of {spec.model.uri} on {plan.device}, by {workers}{gpus}."


def _has_shared_output(observed: Observed) -> bool:
    if observed.claim:
        return "ReadWriteMany" in observed.claim.access_modes
    output = observed.sampling.spec.output
    return output.uri is None and output.claim is not None and "ReadWriteMany" in output.claim.access_modes


def _cost(draft: StatusBuilder, spec: Spec) -> Cost:
    """Returns the cost with the attempt that ends now. Its pods count from the time at which the head was scheduled."""
    status = draft.status
    previous = status.cost or Cost()
    begun = status.cluster.scheduled_time if status.cluster else None
    plan = status.plan
    if begun is None or plan is None:
        return previous
    seconds = max(0, round((draft.now - begun).total_seconds()))
    cpus = parse(head_size(spec, plan).cpu) + plan.workers * parse(worker_size(spec, plan).cpu)
    return Cost(
        gpu_seconds=previous.gpu_seconds + plan.gpus * seconds,
        cpu_seconds=previous.cpu_seconds + round(cpus * seconds),
    )


def _failure(draft: StatusBuilder, spec: Spec, problem: Problem, hint: str, log: str) -> Failure:
    return Failure(
        reason=problem.reason,
        message=clip(redact(problem.message), MAX_MESSAGE_LENGTH),
        hint=clip(as_sentence(redact(hint)) if hint else problem.reason.hint, MAX_HINT_LENGTH),
        log_tail=log_tail(log),
        time=draft.now,
        backoff_limit=spec.backoff_limit,
    )


def _finish_failed(draft: StatusBuilder, failure: Failure) -> StatusBuilder:
    draft = draft.set(phase=Phase.FAILED, completion_time=draft.now)
    message = "The sampling failed before all samples were stored."
    draft = draft.set_condition(ConditionType.COMPLETE, False, "Failed", message)
    return draft.set_condition(ConditionType.FAILED, True, failure.reason, f"{failure.message} {failure.hint}")
