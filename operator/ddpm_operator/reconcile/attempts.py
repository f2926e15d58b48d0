"""An attempt's beginning and end, as the status keeps them. Every RayCluster belongs to one numbered attempt.

`status.cluster` is there exactly as long as an attempt is under way. What remains of its cluster after that is no
part of the attempt any more, only something to be cleaned up.
"""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import ConditionType, DDPMSampling, Failure, FailureReason, Phase, Plan, Spec
from ddpm_operator.api.quantity import parse
from ddpm_operator.api.status import Cluster as ClusterStatus
from ddpm_operator.api.status import Cost
from ddpm_operator.manifests.naming import claim_name, cluster_name
from ddpm_operator.manifests.render import Attempt
from ddpm_operator.planning.image_reference import repository
from ddpm_operator.planning.sizing import head_size, worker_size
from ddpm_operator.reconcile.deadlines import STUCK_POD, running_seconds
from ddpm_operator.reconcile.diagnosis import Problem
from ddpm_operator.reconcile.observed import Observed, ObservedPod
from ddpm_operator.reconcile.progress import stopped
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.text import MAX_HINT_LENGTH, MAX_MESSAGE_LENGTH, as_sentence, clip, count, log_tail, redact

# Another attempt would meet the same.
FINAL = frozenset(
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


def begin(draft: StatusBuilder, sampling: DDPMSampling, chosen: Plan) -> StatusBuilder:
    """The next attempt, before anything of it exists.

    Args:
        chosen: the plan that it follows.
    """
    spec, status = sampling.spec, draft.status
    number = (status.attempt or 0) + 1
    # A queue takes the cluster when it is there: until then the deadline runs, or nothing would ever end it.
    cluster = ClusterStatus(name=cluster_name(sampling.metadata, number), start_time=draft.now)
    draft = draft.put(
        phase=Phase.STARTING,
        attempt=number,
        plan=chosen,
        cluster=cluster,
        failure=None,
        # Before the first attempt it was only what would have been taken then.
        image=status.image if status.attempt else None,
        start_time=status.start_time or (None if spec.queue_name else draft.now),
    )
    draft = draft.say(ConditionType.ACCEPTED, True, "Planned", summary(spec, chosen))
    return draft.say(ConditionType.CLUSTER_READY, False, "Creating", f"The RayCluster {cluster.name} is created.")


def pause(draft: StatusBuilder, spec: Spec, reason: str, why: str) -> StatusBuilder:
    """The attempt has no pods any more: what it ran and cost is added up."""
    status = draft.status
    paused = {"start_time": None, "scheduled_time": None}
    cluster = status.cluster.model_copy(update=paused) if status.cluster else None
    draft = draft.put(
        running_seconds=running_seconds(status, draft.now),
        cost=_cost(draft, spec),
        cluster=cluster,
        progress=stopped(status.progress) if status.progress else None,
    )
    draft = draft.say(ConditionType.RUNNING, False, reason, why)
    return draft.say(ConditionType.CLUSTER_READY, False, reason, why)


def end(draft: StatusBuilder, spec: Spec, reason: str, why: str) -> StatusBuilder:
    """The attempt's end, however it ended: its cluster is no more in use."""
    return pause(draft, spec, reason, why).put(cluster=None)


def fail(draft: StatusBuilder, spec: Spec, trouble: Problem, hint: str = "", log: str = "") -> StatusBuilder:
    """The attempt's failure, and the sampling's if there is to be no other."""
    failed = (draft.status.failed_attempts or 0) + 1
    last = _met_again(trouble) or failed > spec.backoff_limit
    number = draft.status.attempt or 0
    draft = end(draft, spec, "AttemptFailed", f"Attempt {number} failed ({trouble.reason}).")
    draft = draft.put(failed_attempts=failed, failure=_failure(draft, spec, trouble, hint, log))
    if last:
        return _finish_failed(draft)
    return draft.put(phase=Phase.PENDING)


def _met_again(trouble: Problem) -> bool:
    """Whether another attempt would meet the same. A quota that only others fill may have room by then."""
    return trouble.reason in FINAL and (trouble.certain or trouble.reason is not FailureReason.QUOTA_EXCEEDED)


def reject(draft: StatusBuilder, spec: Spec, trouble: Problem, hint: str = "") -> StatusBuilder:
    """The end of a sampling that cannot be done as it is asked for, as only the operator can know."""
    draft = end(draft, spec, "NotAccepted", "The sampling was not accepted.")
    draft = draft.put(failure=_failure(draft, spec, trouble, hint, ""))
    draft = draft.say(ConditionType.ACCEPTED, False, trouble.reason, trouble.message)
    return _finish_failed(draft)


def nothing_left(observed: Observed, now: datetime) -> bool:
    """Whether no cluster and no pod is there that another attempt could come into conflict with."""
    stuck = now - STUCK_POD
    return not observed.clusters and all(pod.deleted and pod.deleted <= stuck for pod in observed.pods)


def rendering(observed: Observed, draft: StatusBuilder) -> Attempt:
    """The attempt that is under way, as templates and the job's document take it."""
    sampling, status = observed.sampling, draft.status
    if status.plan is None or status.attempt is None:
        raise ValueError("no attempt is under way")
    return Attempt(
        sampling=sampling.metadata,
        number=status.attempt,
        spec=sampling.spec,
        plan=status.plan,
        image=image_of(observed, draft),
        ray_version=observed.image.ray_version,
        shared_output=_shared_output(observed),
        pull_policy=observed.image.pull_policy,
        cloud_identity=observed.limits.cloud_identity,
    )


def image_of(observed: Observed, draft: StatusBuilder) -> str:
    """What the pods run: that of the attempts so far, else what is asked for, else the operator's default."""
    return draft.status.image or observed.sampling.spec.image or observed.image.reference


def digest_of(pod: ObservedPod, asked: str) -> str | None:
    """The image of a pod by its digest; None while that is not known.

    An image that was loaded into a node under another name cannot be had by that name elsewhere: it stays what
    was asked for.
    """
    found = next((container.image_id for container in pod.containers if container.image_id), None)
    if found is None:
        return None
    found = found.removeprefix("docker-pullable://")
    return found if "@sha256:" in found and repository(found) == repository(asked) else asked


def output_uri(sampling: DDPMSampling) -> str:
    """Where the samples are, for people and for `kubectl ddpm fetch`."""
    return sampling.spec.output.uri or f"pvc://{claim_name(sampling.metadata)}"


def summary(spec: Spec, chosen: Plan) -> str:
    """What is done, in a sentence."""
    where = count(chosen.workers, "worker") if chosen.workers else "the head alone"
    gpus = f" with {count(chosen.gpus, 'GPU')} in all" if chosen.gpus else ""
    return f"{count(spec.samples, 'sample')} of {spec.model.uri} on {chosen.device}, by {where}{gpus}."


def _shared_output(observed: Observed) -> bool:
    if observed.claim:
        return "ReadWriteMany" in observed.claim.access_modes
    output = observed.sampling.spec.output
    return output.uri is None and output.claim is not None and "ReadWriteMany" in output.claim.access_modes


def _cost(draft: StatusBuilder, spec: Spec) -> Cost:
    """The cost with the attempt that ends now, whose pods are counted from the moment the head had a node."""
    status = draft.status
    former = status.cost or Cost()
    begun = status.cluster.scheduled_time if status.cluster else None
    if begun is None or status.plan is None:
        return former
    seconds = max(0, round((draft.now - begun).total_seconds()))
    chosen = status.plan
    cpus = parse(head_size(spec, chosen).cpu) + chosen.workers * parse(worker_size(spec, chosen).cpu)
    return Cost(
        gpu_seconds=former.gpu_seconds + chosen.gpus * seconds,
        cpu_seconds=former.cpu_seconds + round(cpus * seconds),
    )


def _failure(draft: StatusBuilder, spec: Spec, trouble: Problem, hint: str, log: str) -> Failure:
    return Failure(
        reason=trouble.reason,
        message=clip(redact(trouble.message), MAX_MESSAGE_LENGTH),
        hint=clip(as_sentence(redact(hint)) if hint else trouble.reason.hint, MAX_HINT_LENGTH),
        log_tail=log_tail(log),
        time=draft.now,
        backoff_limit=spec.backoff_limit,
    )


def _finish_failed(draft: StatusBuilder) -> StatusBuilder:
    failure = draft.status.failure
    if failure is None:
        raise ValueError("a sampling fails with a reason")
    draft = draft.put(phase=Phase.FAILED, completion_time=draft.now)
    draft = draft.say(ConditionType.COMPLETE, False, "Failed", "The sampling failed before all samples were stored.")
    return draft.say(ConditionType.FAILED, True, failure.reason, f"{failure.message} {failure.hint}")
