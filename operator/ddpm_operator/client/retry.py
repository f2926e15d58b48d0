"""What lets a failed sampling try again: a higher backoffLimit than it had when it failed. Pure."""

from __future__ import annotations

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.client.conditions import condition, status_message
from ddpm_operator.client.errors import RequestRejected
from ddpm_operator.kube.responses import Document

MOST = 100


def one_more_attempt(sampling: DDPMSampling) -> Document:
    """The change of a failed sampling, as a merge patch, with which the operator goes on with what is missing.

    Raises:
        Refused: if it has not failed, or can have no higher backoffLimit.
    """
    metadata, spec, status = sampling.metadata, sampling.spec, sampling.status
    # Also if the operator has not seen the newest spec yet: a spec is mended first, and tried again at once.
    failed = condition(sampling, ConditionType.FAILED)
    if status is None or failed is None or failed.status != "True":
        phase = status.phase if status and status.phase else "new"
        raise RequestRejected(
            f"{metadata.name} has not failed: it is {phase}. {status_message(sampling)}".rstrip(),
            "only what is Failed is tried again; `kubectl ddpm submit` with more samples lets one that is "
            "complete grow",
        )
    former = status.failure.backoff_limit if status.failure else None
    limit = max(spec.backoff_limit, former or 0, status.failed_attempts or 0)
    if limit >= MOST:
        raise RequestRejected(
            f"{metadata.name} cannot be tried again: its backoffLimit is {limit} already, of at most {MOST}",
            "delete it and create it anew: where its output stays, it goes on with what is missing",
        )
    # With the uid, so that another one of its name is left alone.
    return {"metadata": {"uid": metadata.uid}, "spec": {"backoffLimit": limit + 1}}
