"""What the driver's word means: from Ray's jobs and the driver's own document to what follows.

Truth about the end is the driver's outcome. Ray's state of the job is the fallback for an operator that was away
when it was served: a driver that has succeeded is asked again, finds all samples there, and says so once more.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_operator.manifests.naming import job_id
from ddpm_operator.reconcile.observed import HeadResponse
from ddpm_operator.reconcile.progress_document import FailedOutcome, FinishedOutcome, ProgressDocument, last_error

# Drivers that succeed and whose outcome nobody gets to read: after so many it is no coincidence.
MOST_UNHEARD = 3


@dataclass(frozen=True)
class SubmitDriver:
    """The job is to be submitted, as the cluster's n-th."""

    id: str


@dataclass(frozen=True)
class DriverRunning:
    """The driver is at work, or about to be.

    Attributes:
        running: Ray says that it runs.
        progress: None if it says nothing of it, as in its first seconds.
    """

    running: bool
    progress: ProgressDocument | None


@dataclass(frozen=True)
class DriverSucceeded:
    """All samples that are asked for are stored."""

    result: FinishedOutcome


@dataclass(frozen=True)
class DriverFailed:
    """The driver has given up.

    Attributes:
        log: end of its log.
    """

    error: FailedOutcome
    log: str


JobOutcome = SubmitDriver | DriverRunning | DriverSucceeded | DriverFailed


def job_outcome(answer: HeadResponse, cluster: str, samples: int) -> JobOutcome:
    """What follows from what the head of a cluster answered.

    Args:
        cluster: its name.
        samples: N, as it is asked for now.
    """
    jobs = answer.jobs
    outcome = answer.progress.outcome if answer.progress else None
    if isinstance(outcome, FinishedOutcome) and outcome.samples >= samples:
        return DriverSucceeded(outcome)
    if not jobs:
        return SubmitDriver(cluster)
    last = jobs[-1]
    if isinstance(outcome, FailedOutcome):
        return DriverFailed(outcome, last.log)
    match last.state:
        case "PENDING" | "RUNNING":
            return DriverRunning(last.state == "RUNNING", answer.progress)
        case "SUCCEEDED":
            unheard = [job for job in jobs if job.state == "SUCCEEDED" and job.samples >= samples]
            if len(unheard) < MOST_UNHEARD:
                return SubmitDriver(job_id(cluster, len(jobs) + 1))
            return DriverFailed(
                _failed(f"The driver succeeded {len(unheard)} times, but its result could not be read from it"), ""
            )
        case "STOPPED":
            return DriverFailed(_failed(f"The Ray job {last.id} was stopped by somebody"), last.log)
        case "FAILED":
            error = last_error(last.message) or last_error(last.log)
            return DriverFailed(error or _without_a_word(last.message or "no message"), last.log)


def _without_a_word(message: str) -> FailedOutcome:
    # Ray's watch over memory may end the job itself and not a worker; then Ray alone can tell.
    if "low on memory" in message:
        words = " ".join(message.split()).partition(" OOM kill reason")[0]
        return FailedOutcome(reason="OutOfMemory", exit_code=4, message=f"Ray ended the driver: {words[:500]}")
    return _failed(f"The driver ended without a word: {message}")


def _failed(message: str) -> FailedOutcome:
    return FailedOutcome(reason="DriverFailed", exit_code=4, message=message)
