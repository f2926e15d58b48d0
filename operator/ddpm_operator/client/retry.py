"""Retries a failed sampling by raising spec.backoffLimit above its value at the time of the failure. Pure."""

from __future__ import annotations

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.api.conditions import condition
from ddpm_operator.client.conditions import status_message
from ddpm_operator.client.errors import RequestRejected
from ddpm_operator.kube.responses import Document

# The maximum that the CRD allows.
MAX_BACKOFF_LIMIT = 100


def retry_patch(sampling: DDPMSampling) -> Document:
    """Returns the merge patch that lets the operator start another attempt, which draws only the missing samples.

    Raises:
        RequestRejected: if the sampling has not failed, or its backoffLimit is already the maximum.
    """
    metadata, spec, status = sampling.metadata, sampling.spec, sampling.status
    # The condition counts even if the operator has not reconciled the newest generation yet: users fix the spec and
    # retry at once.
    failed = condition(status, ConditionType.FAILED)
    if status is None or failed is None or failed.status != "True":
        phase = status.phase if status and status.phase else "new"
        raise RequestRejected(
            f"{metadata.name} has not failed: it is {phase}. {status_message(sampling)}".rstrip(),
            "only a Failed sampling can be retried; to draw more samples, use `kubectl ddpm submit` with a larger "
            "--n_samples",
        )
    limit_at_failure = status.failure.backoff_limit if status.failure else None
    limit = max(spec.backoff_limit, limit_at_failure or 0, status.failed_attempts or 0)
    if limit >= MAX_BACKOFF_LIMIT:
        raise RequestRejected(
            f"{metadata.name} cannot be retried: its backoffLimit is already {limit}, the maximum",
            "delete it and submit it again: if its output is retained, only the missing samples are drawn",
        )
    # The uid makes sure that a new sampling of the same name is not changed.
    return {"metadata": {"uid": metadata.uid}, "spec": {"backoffLimit": limit + 1}}
