"""The operator's log line for an executed action: one for each change, none for routine actions. Pure."""

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
from ddpm_operator.text import count


def log_line(action: Action, before: Status | None) -> str | None:
    """Returns the log line for an action, without the sampling's name; None if the action is not logged.

    Args:
        before: the status before the action.
    """
    match action:
        case WriteStatus(status):
            return _transition(before, status)
        case EnsureClaim():
            return "the output claim exists"
        case CreateCluster(attempt):
            size = f"{count(attempt.plan.workers, 'worker')}, {count(attempt.plan.gpus, 'GPU')}"
            return f"created the RayCluster {attempt.name}: {size}"
        case CreateSecret(attempt, _):
            return f"created the Secret with the tokens of {attempt.name}"
        case SubmitJob(_, job, head_ip):
            return f"submitted the Ray job {job} to {head_ip}"
        case DeleteCluster(name, _):
            return f"deleted the RayCluster {name}"
        case DeleteSampling():
            return "deleted, as ttlSecondsAfterFinished has passed"
        case Event() | CreateNetworkPolicy() | CopyPreview() | WritePreview():
            return None


def _transition(before: Status | None, status: Status) -> str | None:
    old = {one.type: one.status for one in before.conditions} if before else {}
    changed = [
        f"{one.type}={one.status} ({one.reason})"
        for one in status.conditions
        if old.get(one.type, "False") != one.status
    ]
    if not changed and before and before.phase == status.phase and before.attempt == status.attempt:
        return None
    return f"{status.phase}, attempt {status.attempt}: {', '.join(changed)}"
