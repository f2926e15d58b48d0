"""A quota that is full: whether it could ever let a plan's pods in, and what waits for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from ddpm_operator.api import ConditionType, FailureReason, Phase, Plan, Spec
from ddpm_operator.api.quantity import binary, parse
from ddpm_operator.planning.sizing import head_size, worker_size
from ddpm_operator.reconcile.attempts import end
from ddpm_operator.reconcile.diagnosis import OVER_QUOTA, Problem
from ddpm_operator.reconcile.observed import HeadResponse, HeadUnreachable, Observed, ObservedCluster, ObservedPod
from ddpm_operator.reconcile.status_builder import StatusBuilder, condition

# As in `exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2`.
_SAYS = re.compile(r"(requested|limited): ([^\s,=]+=[^\s,]+(?:,[^\s,=]+=[^\s,]+)*)")


def judged(found: Problem, spec: Spec, chosen: Plan | None) -> Problem:
    """The same trouble; if it is a quota that is smaller than the plan, certain, with the figures."""
    if found.reason is not FailureReason.QUOTA_EXCEEDED or chosen is None:
        return found
    said = {what: dict(_amounts(text)) for what, text in _SAYS.findall(found.message)}
    needed, limited = demand(spec, chosen), said.get("limited", {})
    for resource, amount in said.get("requested", {}).items():
        needed[resource] = max(needed.get(resource, Decimal(0)), amount)
    over = [f"{it} {_plain(needed[it])} of {_plain(limited[it])}" for it in limited if needed.get(it, 0) > limited[it]]
    if not over:
        return found
    words = f"{found.message} The sampling needs more than all that the quota has: {', '.join(over)}."
    return replace(found, message=words, certain=True)


def has_begun(observed: Observed, draft: StatusBuilder) -> bool:
    """There is too much of an attempt for it to wait until a quota has room: a driver, or pods enough for one."""
    pods, driver, known = observed.cluster_pods, observed.driver, draft.status.cluster
    wanted = draft.status.plan.workers if draft.status.plan else 0
    if draft.holds(ConditionType.RUNNING) or (isinstance(driver, HeadResponse) and driver.jobs):
        return True
    if isinstance(driver, HeadUnreachable) and draft.status.phase is not Phase.QUEUED:
        return True
    if known and known.head_uid and (observed.head is None or observed.head.uid != known.head_uid):
        return True
    return any(pod.role == "worker" for pod in pods) or (bool(pods) and not wanted)


def without_head(draft: StatusBuilder) -> StatusBuilder:
    """Nothing was asked of the head yet: while the attempt waits, another may take its place."""
    cluster = draft.status.cluster
    return draft.put(cluster=cluster.model_copy(update={"head_uid": None})) if cluster else draft


def waits_for_workers(cluster: ObservedCluster, pods: Sequence[ObservedPod]) -> bool:
    """A cluster has its head, and a full quota keeps all of its workers out.

    Args:
        pods: of that cluster.
    """
    if cluster.deleted or cluster.suspended or not OVER_QUOTA.search(cluster.replica_failure or ""):
        return False
    return {pod.role for pod in pods} == {"head"}


def yield_to_other(draft: StatusBuilder, spec: Spec, ahead: str) -> StatusBuilder:
    """A quota may have room for two heads and no worker: the younger head goes, and no attempt is spent."""
    why = f"The quota has room for one: it waits until the workers of {ahead}, which came first, are there."
    return end(draft, spec, FailureReason.QUOTA_EXCEEDED, why).put(phase=Phase.QUEUED)


def yielded_to_other(draft: StatusBuilder) -> bool:
    """The last attempt has given way, and another has not begun since."""
    ready = condition(draft.status, ConditionType.CLUSTER_READY)
    return ready is not None and ready.reason == FailureReason.QUOTA_EXCEEDED


def demand(spec: Spec, chosen: Plan) -> dict[str, Decimal]:
    """What a plan's pods take of a ResourceQuota, all in all, under the names that a quota has for it."""
    head, worker, workers = head_size(spec, chosen), worker_size(spec, chosen), chosen.workers
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
