"""What the log says of an action: a line where something changes, nothing where it only goes on. Pure."""

from __future__ import annotations

from ddpm_operator.api import Status
from ddpm_operator.reconcile.actions import (
    Action,
    CopyPreview,
    CreateCluster,
    CreateNetworkPolicy,
    CreateSecret,
    DeleteCluster,
    DeleteSampling,
    EnsureClaim,
    Event,
    SubmitJob,
    WritePreview,
    WriteStatus,
)


def log_line(action: Action, before: Status | None) -> str | None:
    """A line for the log, or None.

    Args:
        before: the status that the action was decided on.
    """
    match action:
        case WriteStatus(status):
            return _transition(before, status)
        case EnsureClaim():
            return "made sure of the output's claim"
        case CreateCluster(attempt):
            return f"created the RayCluster {attempt.name}: {attempt.plan.workers} workers, {attempt.plan.gpus} GPUs"
        case CreateSecret(attempt, _):
            return f"created the tokens of {attempt.name}"
        case SubmitJob(_, job, head_ip):
            return f"submitted the job {job} to {head_ip}"
        case DeleteCluster(name, _):
            return f"deleted the RayCluster {name}"
        case DeleteSampling():
            return "deleted, as its time is up"
        case Event() | CreateNetworkPolicy() | CopyPreview() | WritePreview():
            return None


def _transition(before: Status | None, status: Status) -> str | None:
    former = {one.type: one.status for one in before.conditions} if before else {}
    changed = [
        f"{one.type}={one.status} ({one.reason})"
        for one in status.conditions
        if former.get(one.type, "False") != one.status
    ]
    if not changed and before and before.phase == status.phase and before.attempt == status.attempt:
        return None
    return f"is {status.phase}, attempt {status.attempt}: {', '.join(changed)}"
