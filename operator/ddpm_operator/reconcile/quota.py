"""What happens when a ResourceQuota is full: how that is recognised, what the attempt does, and every message about it.

The hint to the user is that of `FailureReason.QUOTA_EXCEEDED`.

- A quota that is smaller than the whole plan can never admit it: `check_quota` makes the problem certain, with the
  figures, and the sampling fails.
- A quota that other pods fill is waited for: as long as the RayCluster has no pods, or only its head, the attempt is
  Queued (`queued`), its clocks stand still, and no attempt is spent.
- If several samplings hold a head and wait for their workers, all but the oldest delete theirs (`yield_to_other`).
  Which one that is, `ddpm_operator.controller.admission.blocked_by` finds out.

The error comes from the API server, either in the response to an action (`ddpm_operator.reconcile.action_failures`) or
in KubeRay's condition ReplicaFailure (`ddpm_operator.reconcile.diagnosis`). Both build their problem with
`rejected_by_quota`. The phase Queued also has other reasons, see `ddpm_operator.reconcile.kueue` and
`ddpm_operator.reconcile.between_attempts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from ddpm_operator.api import FailureReason, Phase, Plan, Spec, Status
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.planning.sizing import head_size, worker_size
from ddpm_operator.reconcile.attempts import end_queued, pause, waits_for
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable, Observed, ObservedCluster, ObservedPod
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.text import as_sentence

# How the API server says that a quota is full. The second wording is that of a quota that was just created.
OVER_QUOTA = re.compile(r"(?i)exceeded quota|status unknown for quota")
# As in `exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2`.
_FIGURES = re.compile(r"(requested|limited): ([^\s,=]+=[^\s,]+(?:,[^\s,=]+=[^\s,]+)*)")


def rejected_by_quota(client: str, action: str, error: str) -> Problem:
    """Returns the problem that a full quota rejected a request. Its message is the one of a Queued sampling.

    Args:
        client: whose request it was, such as "KubeRay".
        action: what was requested, as a phrase that follows "cannot".
        error: the API server's message, which names the quota and its figures.
    """
    message = as_sentence(f"{client} cannot {action}: {error}")
    return Problem(FailureReason.QUOTA_EXCEEDED, message, certain=False)


def check_quota(problem: Problem, spec: Spec, plan: Plan | None) -> Problem:
    """Returns the problem; one about a quota that is smaller than the plan becomes certain and gets the figures."""
    if problem.reason is not FailureReason.QUOTA_EXCEEDED or plan is None:
        return problem
    figures = {name: dict(_amounts(text)) for name, text in _FIGURES.findall(problem.message)}
    needed, limited = demand(spec, plan), figures.get("limited", {})
    for resource, amount in figures.get("requested", {}).items():
        needed[resource] = max(needed.get(resource, Decimal(0)), amount)
    over = [f"{it} {_plain(needed[it])} of {_plain(limited[it])}" for it in limited if needed.get(it, 0) > limited[it]]
    if not over:
        return problem
    message = f"{problem.message} The sampling needs more than the whole quota: {', '.join(over)}."
    return replace(problem, message=message, certain=True)


def is_full(problem: Problem) -> bool:
    """Returns whether a problem is a quota that other pods fill, so that the attempt waits for it."""
    return problem.reason is FailureReason.QUOTA_EXCEEDED and not problem.certain


def full_quota(observed: Observed, status: Status, problem: Problem | None, *, running: bool) -> Problem | None:
    """Returns the problem if a quota that other pods fill keeps out all of the cluster's pods, or all of its workers.

    With a single worker the driver starts, and uses the other workers as they arrive.

    Args:
        problem: the cluster's, see `Assessment.problem`.
        running: the condition Running is True.
    """
    waits = problem is not None and is_full(problem) and not _has_started(observed, status, running=running)
    return problem if waits else None


def _has_started(observed: Observed, status: Status, *, running: bool) -> bool:
    """Returns whether the attempt is too far to wait for the quota: it has a driver, or enough pods for one."""
    pods, poll, recorded = observed.cluster_pods, observed.head_poll, status.cluster
    workers = status.plan.workers if status.plan else 0
    if running or (isinstance(poll, HeadResponse) and poll.jobs):
        return True
    if isinstance(poll, HeadUnreachable) and status.phase is not Phase.QUEUED:
        return True
    if recorded and recorded.head_uid and (observed.head is None or observed.head.uid != recorded.head_uid):
        return True
    return any(pod.role == "worker" for pod in pods) or (bool(pods) and not workers)


def queued(draft: StatusBuilder, spec: Spec, problem: Problem) -> StatusBuilder:
    """Returns the status of an attempt that waits until the quota has room.

    The attempt is not bound to its head: the driver has not been submitted, so another head can replace it.
    """
    draft = pause(draft.set(phase=Phase.QUEUED), spec, problem.reason, problem.message)
    return draft.set_cluster(head_uid=None)


def waits_for_workers(cluster: ObservedCluster, pods: Sequence[ObservedPod]) -> bool:
    """Returns whether a cluster has its head, and a full quota keeps out all of its workers.

    Args:
        pods: those of the cluster.
    """
    if cluster.deleted or cluster.suspended or not OVER_QUOTA.search(cluster.replica_failure or ""):
        return False
    return {pod.role for pod in pods} == {"head"}


def yield_to_other(draft: StatusBuilder, spec: Spec, other: str) -> StatusBuilder:
    """Ends an attempt whose head takes the room that the workers of an older sampling need. It is not a failure.

    Args:
        other: name of the older sampling.
    """
    message = (
        f"The quota cannot hold the workers of this sampling and {other}; this one waits, because {other} is older."
    )
    return end_queued(draft, spec, FailureReason.QUOTA_EXCEEDED, message)


def yielded_to_other(draft: StatusBuilder) -> bool:
    """Returns whether the last attempt ended by `yield_to_other`, and none has begun since."""
    return waits_for(draft.status, FailureReason.QUOTA_EXCEEDED)


def demand(spec: Spec, plan: Plan) -> dict[str, Decimal]:
    """Returns what all pods of a plan take of a ResourceQuota, by the names of the resources in a quota."""
    head, worker, workers = head_size(spec, plan), worker_size(spec, plan), plan.workers
    cpu = parse(head.cpu) + workers * parse(worker.cpu)
    memory = parse(head.memory) + workers * parse(worker.memory)
    return {
        "pods": Decimal(1 + workers),
        "count/pods": Decimal(1 + workers),
        "cpu": cpu,
        "requests.cpu": cpu,
        "limits.cpu": parse(head.cpu_limit) + workers * parse(worker.cpu_limit),
        "memory": memory,
        "requests.memory": memory,
        "limits.memory": memory,
        f"requests.{spec.resources.gpu_resource_name}": Decimal(head.gpus + workers * worker.gpus),
    }


def _amounts(text: str) -> Iterator[tuple[str, Decimal]]:
    for item in text.split(","):
        resource, _, amount = item.partition("=")
        try:
            yield resource, parse(amount.rstrip("."))
        except ValueError:
            continue


def _plain(amount: Decimal) -> str:
    whole = int(amount)
    return binary(whole) if whole == amount and whole % 2**20 == 0 else f"{amount.normalize():f}"
