"""The change of a finished sampling's spec that lets the operator begin another attempt. Pure.

A failed sampling is retried by raising spec.backoffLimit above its value at the time of the failure; a complete one is
repaired by raising spec.repair.
"""

from __future__ import annotations

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.conditions import holds
from ddpm_operator.client.conditions import status_message
from ddpm_operator.client.errors import RequestRejected
from ddpm_operator.kube.responses import Document

# The maxima that the CRD allows.
MAX_BACKOFF_LIMIT = 100
MAX_REPAIR = 1_000_000


def retry_patch(sampling: DDPMSampling, *, repair: bool = False) -> Document:
    """Returns the merge patch that lets the operator start another attempt, which draws only the missing samples.

    Args:
        repair: the attempt also checks all stored files, and draws damaged samples again. A complete sampling can be
            repaired, too.

    Raises:
        RequestRejected: if the sampling has not ended in that way, or a field is already at its maximum.
    """
    metadata, status = sampling.metadata, sampling.status
    # The condition counts even if the operator has not reconciled the newest generation yet: users fix the spec and
    # retry at once.
    failed, complete = holds(status, ConditionType.FAILED), holds(status, ConditionType.COMPLETE)
    if not failed and not (complete and repair):
        raise _not_finished(sampling, repair=repair)
    spec: Document = {}
    if failed:
        spec["backoffLimit"] = _raised_backoff_limit(sampling)
    if repair:
        spec["repair"] = _raised_repair(sampling)
    # The uid makes sure that a new sampling of the same name is not changed.
    return {"metadata": {"uid": metadata.uid}, "spec": spec}


def _not_finished(sampling: DDPMSampling, *, repair: bool) -> RequestRejected:
    name, status = sampling.metadata.name, sampling.status
    phase = status.phase if status and status.phase else "new"
    if repair:
        return RequestRejected(
            f"{name} has not ended: it is {phase}. {status_message(sampling)}".rstrip(),
            f"wait until it has ended, with `kubectl ddpm watch {name}`, then repair it",
        )
    return RequestRejected(
        f"{name} has not failed: it is {phase}. {status_message(sampling)}".rstrip(),
        "only a Failed sampling can be retried; to draw more samples, use `kubectl ddpm submit` with a larger "
        "--n_samples; to check the stored ones and draw damaged ones again, add --repair",
    )


def _raised_backoff_limit(sampling: DDPMSampling) -> int:
    name, status = sampling.metadata.name, sampling.status
    limit_at_failure = status.failure.backoff_limit if status and status.failure else None
    failed_attempts = status.failed_attempts if status else None
    limit = max(sampling.spec.backoff_limit, limit_at_failure or 0, failed_attempts or 0)
    if limit >= MAX_BACKOFF_LIMIT:
        raise RequestRejected(
            f"{name} cannot be retried: its backoffLimit is already {limit}, the maximum",
            "delete it and submit it again: if its output is retained, only the missing samples are drawn",
        )
    return limit + 1


def _raised_repair(sampling: DDPMSampling) -> int:
    status = sampling.status
    repair = max(sampling.spec.repair, (status.repaired if status else None) or 0)
    if repair >= MAX_REPAIR:
        raise RequestRejected(
            f"{sampling.metadata.name} cannot be repaired: its repair is already {repair}, the maximum",
            "delete it and submit it again: if its output is retained, damaged files are found there",
        )
    return repair + 1
