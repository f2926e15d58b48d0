"""What the driver's word means: from Ray's jobs and the driver's own document to what follows.

Truth about the end is the driver's outcome. Ray's state of the job is the fallback for an operator that was away
when it was served: a driver that has succeeded is asked again, finds all samples there, and says so once more.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_operator.manifests.naming import job_id
from ddpm_operator.reconcile.observed import Answer
from ddpm_operator.reconcile.progress_document import Broken, Finished, ProgressDocument, last_error

# Drivers that succeed and whose outcome nobody gets to read: after so many it is no coincidence.
MOST_UNHEARD = 3


@dataclass(frozen=True)
class Ask:
    """The job is to be submitted, as the cluster's n-th."""

    id: str


@dataclass(frozen=True)
class Underway:
    """The driver is at work, or about to be.

    Attributes:
        running: Ray says that it runs.
        progress: None if it says nothing of it, as in its first seconds.
    """

    running: bool
    progress: ProgressDocument | None


@dataclass(frozen=True)
class Done:
    """All samples that are asked for are stored."""

    result: Finished


@dataclass(frozen=True)
class Died:
    """The driver has given up.

    Attributes:
        log: end of its log.
    """

    error: Broken
    log: str


Verdict = Ask | Underway | Done | Died


def verdict(answer: Answer, cluster: str, samples: int) -> Verdict:
    """What follows from what the head of a cluster answered.

    Args:
        cluster: its name.
        samples: N, as it is asked for now.
    """
    jobs = answer.jobs
    outcome = answer.progress.outcome if answer.progress else None
    if isinstance(outcome, Finished) and outcome.samples >= samples:
        return Done(outcome)
    if not jobs:
        return Ask(cluster)
    last = jobs[-1]
    if isinstance(outcome, Broken):
        return Died(outcome, last.log)
    match last.state:
        case "PENDING" | "RUNNING":
            return Underway(last.state == "RUNNING", answer.progress)
        case "SUCCEEDED":
            unheard = [job for job in jobs if job.state == "SUCCEEDED" and job.samples >= samples]
            if len(unheard) < MOST_UNHEARD:
                return Ask(job_id(cluster, len(jobs) + 1))
            return Died(
                _failed(f"The driver succeeded {len(unheard)} times, but its result could not be read from it"), ""
            )
        case "STOPPED":
            return Died(_failed(f"The Ray job {last.id} was stopped by somebody"), last.log)
        case "FAILED":
            error = last_error(last.message) or last_error(last.log)
            return Died(error or _without_a_word(last.message or "no message"), last.log)


def _without_a_word(message: str) -> Broken:
    # Ray's watch over memory may end the job itself and not a worker; then Ray alone can tell.
    if "low on memory" in message:
        words = " ".join(message.split()).partition(" OOM kill reason")[0]
        return Broken(reason="OutOfMemory", exit_code=4, message=f"Ray ended the driver: {words[:500]}")
    return _failed(f"The driver ended without a word: {message}")


def _failed(message: str) -> Broken:
    return Broken(reason="DriverFailed", exit_code=4, message=message)
