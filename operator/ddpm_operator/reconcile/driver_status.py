"""The driver's word, as the status takes it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import timedelta

from ddpm_operator.api import ConditionType, FailureReason, Phase
from ddpm_operator.api.status import Result
from ddpm_operator.manifests.naming import preview_name
from ddpm_operator.reconcile import deadlines
from ddpm_operator.reconcile.actions import CopyPreview, SubmitJob, WritePreview
from ddpm_operator.reconcile.attempts import end, fail, output_uri, rendering
from ddpm_operator.reconcile.diagnosis import Problem, pod_problem, worker_out_of_memory
from ddpm_operator.reconcile.growth import outgrown, update_plan
from ddpm_operator.reconcile.job_outcome import (
    DriverFailed,
    DriverRunning,
    DriverSucceeded,
    JobOutcome,
    SubmitDriver,
    job_outcome,
)
from ddpm_operator.reconcile.observed import ActionErrorKind, HeadResponse, HeadUnreachable, Observed
from ddpm_operator.reconcile.progress import LEAST_BETWEEN_WRITES, progress, renewed
from ddpm_operator.reconcile.progress_document import FailedOutcome, FinishedOutcome, ProgressDocument
from ddpm_operator.reconcile.quota import judged
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition
from ddpm_operator.text import as_sentence, duration, redact

MAX_PREVIEW_BYTES = 48 * 1024
PREVIEW_EVERY = timedelta(seconds=30)

# A sampling has fields instead of flags, and is run again by `kubectl ddpm retry`.
_OF_THE_COMMAND = re.compile(r"--\w|same (command|flags)|log on its node")
_WITHOUT_CREDENTIALS = re.compile(r"no credentials|locate credentials")
_NAME_SOME = (
    "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.credentialsSecretRef, then run "
    "`kubectl ddpm retry`"
)
_NODES_ARE_CLOSED = "those of its node are closed to a sampling by the chart's value allowed.cloudIdentity"
_TO_RESUME = re.compile(r"; run the same command again\b[^.;]*")
_SAMPLING = ("sampling", "writing", "complete")
_WITHOUT_WORKERS = (FailureReason.WORKER_LOST, FailureReason.UNSCHEDULABLE)
_EAGER = timedelta(seconds=0.5)
_ATTENTIVE = timedelta(seconds=1)
# What is heard late is late by this part of the time that the attempt has taken.
_LATE_BY = 1 / 40


def driver_end(observed: Observed, draft: StatusBuilder) -> Transition | None:
    """The attempt's end, if the driver or its silence tells of one."""
    spec, now = observed.sampling.spec, draft.now
    if isinstance(observed.driver, HeadUnreachable):
        if now < observed.driver.since + deadlines.MAX_SILENCE:
            return None
        silent = f"The head has not answered for {duration(deadlines.MAX_SILENCE.total_seconds())}"
        message = as_sentence(f"{silent}: {observed.driver.message}" if observed.driver.message else silent)
        return Transition(fail(draft, spec, Problem(FailureReason.HEAD_LOST, message, certain=True)))
    match _word(observed, draft):
        case DriverSucceeded(result):
            return _complete(observed, draft, result)
        case SubmitDriver() if outgrown(spec, draft.status):
            ended = end(draft, spec, "Grown", "More samples are asked for than this cluster was made for.")
            return Transition(ended.put(phase=Phase.PENDING))
        case DriverFailed(error, log):
            return Transition(fail(draft, spec, _cause(observed, draft, error), _hint(observed, error), log))
    return None


def record_driver_status(observed: Observed, draft: StatusBuilder) -> StatusBuilder:
    """Takes down whether the driver samples, how far it is and what it has chosen, whatever else is decided."""
    spec, status, driver = observed.sampling.spec, draft.status, observed.driver
    document = driver.progress if isinstance(driver, HeadResponse) else None
    if document is None:
        late = deadlines.startup_deadline(spec, status)
        if _word(observed, draft) == DriverRunning(running=True, progress=None) and late and draft.now >= late:
            # It works and cannot be heard: no reason to end it.
            draft = _running(draft, "The driver runs, but says nothing of its progress.")
        return draft
    if status.progress:
        draft = draft.put(progress=renewed(status.progress, document, spec.samples, draft.now))
    if status.plan and document.plan:
        # Of the samples that it was asked for; by now it may be more of them.
        draft = update_plan(spec, draft.put(plan=status.plan.model_copy(update=document.plan.model_dump())))
    words = as_sentence(redact(document.message)) if document.message else f"The driver is {document.phase}."
    if document.phase in _SAMPLING or draft.holds(ConditionType.RUNNING):
        return _running(draft, words)
    return draft.say(ConditionType.RUNNING, False, "Starting", words)


def follow_driver(observed: Observed, draft: StatusBuilder) -> Transition:
    """What follows from the word of a driver that has not ended."""
    head = observed.head_to_ask
    soon = draft.now + _at_most(_ATTENTIVE if head and head.ready else _EAGER, draft)
    match _word(observed, draft):
        case SubmitDriver(id) if head:
            return Transition(draft, after=(SubmitJob(rendering(observed, draft), id, head.ip),), look=soon)
        case DriverRunning(_, ProgressDocument() as document) if head:
            if draft.status.output:
                grid = _grid(observed, draft)
                draft = draft.put(output=draft.status.output.model_copy(update={"grid": grid}))
            after = (
                (CopyPreview(rendering(observed, draft), head.ip),) if _preview_due(observed, draft, document) else ()
            )
            return Transition(draft, after=after, look=draft.now + _pause(document, draft))
    return Transition(draft, look=soon)


def _pause(document: ProgressDocument, draft: StatusBuilder) -> timedelta:
    """As long as there is nothing new to write, but so that the end is heard when it comes."""
    left = document.eta_seconds
    if left is None:
        return _at_most(_ATTENTIVE, draft)
    return min(max(timedelta(seconds=left), _at_most(_EAGER, draft)), LEAST_BETWEEN_WRITES)


def _at_most(pause: timedelta, draft: StatusBuilder) -> timedelta:
    """A shorter pause in an attempt that is young; `reconcile` has a shortest one."""
    began = draft.status.cluster.start_time if draft.status.cluster else None
    return min(pause, (draft.now - began) * _LATE_BY) if began else pause


def _preview_due(observed: Observed, draft: StatusBuilder, document: ProgressDocument) -> bool:
    tried = observed.preview_tried
    return document.done > 0 and (tried is None or draft.now >= tried + PREVIEW_EVERY)


def _grid(observed: Observed, draft: StatusBuilder) -> str | None:
    """The preview's ConfigMap, if it was written now or by an operator before this one."""
    if observed.preview_written:
        return preview_name(observed.sampling.metadata)
    return draft.status.output.grid if draft.status.output else None


def _word(observed: Observed, draft: StatusBuilder) -> JobOutcome | None:
    cluster = draft.status.cluster
    if not isinstance(observed.driver, HeadResponse) or cluster is None:
        return None
    return job_outcome(observed.driver, cluster.name, observed.sampling.spec.samples)


def _running(draft: StatusBuilder, words: str) -> StatusBuilder:
    return draft.put(phase=Phase.RUNNING).say(ConditionType.RUNNING, True, "Sampling", words)


def _complete(observed: Observed, draft: StatusBuilder, result: FinishedOutcome) -> Transition:
    sampling = observed.sampling
    png = None if ActionErrorKind.PREVIEW in [fault.kind for fault in observed.faults] else _png(result)
    stored = "sample is" if result.samples == 1 else "samples are"
    words = f"{result.samples:,} {stored} stored at {output_uri(sampling)}."
    draft = end(draft, sampling.spec, "Complete", words)
    draft = draft.put(
        phase=Phase.SUCCEEDED,
        completion_time=draft.now,
        failure=None,
        progress=progress(result.samples, result.samples).model_copy(update={"last_update_time": draft.now}),
        output=Result(
            uri=output_uri(sampling),
            manifest_sha256=result.manifest_sha256,
            grid=preview_name(sampling.metadata) if png else _grid(observed, draft),
        ),
    )
    draft = draft.say(ConditionType.COMPLETE, True, "AllSamplesStored", words)
    return Transition(draft, before=(WritePreview(png),) if png else ())


def _png(result: FinishedOutcome) -> bytes | None:
    """The preview of the end; None if there is none that fits into a ConfigMap."""
    try:
        png = base64.b64decode(result.grid or "", validate=True)
    except ValueError:  # no base64, or not even ASCII
        return None
    return png if 0 < len(png) <= MAX_PREVIEW_BYTES else None


def _hint(observed: Observed, error: FailedOutcome) -> str:
    """The driver's hint, or what it means for a sampling; "" if it is one for who has typed its command."""
    if observed.sampling.spec.credentials_secret_ref is None and _WITHOUT_CREDENTIALS.search(error.message):
        return _NAME_SOME if observed.limits.cloud_identity else f"{_NAME_SOME}; {_NODES_ARE_CLOSED}"
    return "" if _OF_THE_COMMAND.search(error.hint) else error.hint


def _cause(observed: Observed, draft: StatusBuilder, error: FailedOutcome) -> Problem:
    """What the driver died of, in the closed list's word; its pods may know better."""
    words = as_sentence(_TO_RESUME.sub("", error.message))
    reason = next((it for it in FailureReason if it == error.reason), FailureReason.DRIVER_FAILED)
    starved = worker_out_of_memory(observed.cluster_pods) if reason is FailureReason.WORKER_LOST else None
    if starved:
        reason, words = FailureReason.OUT_OF_MEMORY, f"{words} The worker pod {starved} ran out of memory."
    elif reason in _WITHOUT_WORKERS and observed.cluster and draft.status.cluster:
        found = pod_problem(observed.cluster, observed.cluster_pods, draft.status.cluster.start_time, draft.now)
        if found:
            found = judged(found, observed.sampling.spec, draft.status.plan)
            words = f"{words} {found.message}"
            if reason is FailureReason.UNSCHEDULABLE:
                return replace(found, message=words)
    return Problem(reason, words, certain=True)
