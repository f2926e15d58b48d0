"""Determines the state of the driver from Ray's jobs and the driver's own progress document.

The driver's outcome decides about its end. Ray's job status is the fallback for an operator that was away while the
outcome was served: a driver that succeeded unseen is submitted again, finds all samples stored, and reports so again.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_operator.manifests.naming import job_id
from ddpm_operator.reconcile.observed import HeadResponse
from ddpm_operator.reconcile.progress_document import FailedOutcome, FinishedOutcome, ProgressDocument, last_error

# After so many drivers that succeeded without a readable outcome, submitting another one would be in vain.
MAX_UNREAD_SUCCESSES = 3


@dataclass(frozen=True)
class DriverMissing:
    """No driver draws the requested samples; one is to be submitted.

    Attributes:
        job_id: the submission id for it.
    """

    job_id: str


@dataclass(frozen=True)
class DriverRunning:
    """The driver runs or is about to.

    Attributes:
        running: whether Ray reports the job as RUNNING.
        progress: None if the driver does not serve it, as in its first seconds.
    """

    running: bool
    progress: ProgressDocument | None


@dataclass(frozen=True)
class DriverSucceeded:
    """All requested samples are stored."""

    result: FinishedOutcome


@dataclass(frozen=True)
class DriverFailed:
    """The driver ended before all samples were stored.

    Attributes:
        log: the end of its log.
    """

    error: FailedOutcome
    log: str


DriverState = DriverMissing | DriverRunning | DriverSucceeded | DriverFailed


def driver_state(response: HeadResponse, cluster: str, samples: int) -> DriverState:
    """Returns the state of the driver according to the response of its head.

    Args:
        cluster: name of the RayCluster.
        samples: spec.samples, as requested now.
    """
    jobs = response.jobs
    outcome = response.progress.outcome if response.progress else None
    if isinstance(outcome, FinishedOutcome) and outcome.samples >= samples:
        return DriverSucceeded(outcome)
    if not jobs:
        return DriverMissing(cluster)
    last = jobs[-1]
    if isinstance(outcome, FailedOutcome):
        return DriverFailed(outcome, last.log)
    match last.state:
        case "PENDING" | "RUNNING":
            return DriverRunning(last.state == "RUNNING", response.progress)
        case "SUCCEEDED":
            unread = [job for job in jobs if job.state == "SUCCEEDED" and job.samples >= samples]
            if len(unread) < MAX_UNREAD_SUCCESSES:
                return DriverMissing(job_id(cluster, len(jobs) + 1))
            return DriverFailed(
                _failed(f"The driver succeeded {len(unread)} times, but its result could not be read"), ""
            )
        case "STOPPED":
            return DriverFailed(_failed(f"The Ray job {last.id} was stopped, and not by the operator"), last.log)
        case "FAILED":
            error = last_error(last.message) or last_error(last.log)
            return DriverFailed(error or _failed_without_error(last.message or "no message"), last.log)


def _failed_without_error(message: str) -> FailedOutcome:
    # Ray's memory monitor may kill the driver itself instead of a worker. Then only Ray's message names the cause.
    if "low on memory" in message:
        cause = " ".join(message.split()).partition(" OOM kill reason")[0]
        return FailedOutcome(reason="OutOfMemory", exit_code=4, message=f"Ray ended the driver: {cause[:500]}")
    return _failed(f"The driver ended without reporting an error: {message}")


def _failed(message: str) -> FailedOutcome:
    return FailedOutcome(reason="DriverFailed", exit_code=4, message=message)
