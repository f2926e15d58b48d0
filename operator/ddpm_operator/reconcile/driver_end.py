"""What happens when the driver ends: the attempt completes, fails, or makes room for a larger cluster."""

from __future__ import annotations

import re
from dataclasses import replace

from ddpm_operator.api import ConditionType, FailureReason, Phase
from ddpm_operator.api.status import Result
from ddpm_operator.manifests.naming import preview_name
from ddpm_operator.reconcile import other_hardware
from ddpm_operator.reconcile.actions import WritePreview
from ddpm_operator.reconcile.assessment import Assessment
from ddpm_operator.reconcile.attempts import end, fail, output_uri
from ddpm_operator.reconcile.diagnosis import worker_out_of_memory
from ddpm_operator.reconcile.driver_state import DriverFailed, DriverMissing, DriverSucceeded
from ddpm_operator.reconcile.growth import larger_plan
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.preview import final_preview, preview_config_map
from ddpm_operator.reconcile.problem import Problem
from ddpm_operator.reconcile.progress import progress
from ddpm_operator.reconcile.progress_document import FailedOutcome
from ddpm_operator.reconcile.status_builder import StatusBuilder
from ddpm_operator.reconcile.transition import Transition
from ddpm_operator.text import as_sentence

# Advice for the command line `ddpm-sample`. A sampling has fields instead of flags, and `kubectl ddpm retry`.
_COMMAND_LINE_HINT = re.compile(r"--\w|same (command|flags)|log on its node")
_RESUME_COMMAND = re.compile(r"; run the same command again\b[^.;]*")
_MISSING_CREDENTIALS = re.compile(r"no credentials|locate credentials")
_CREDENTIALS_HINT = (
    "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.credentialsSecretRef, then run "
    "`kubectl ddpm retry`"
)
_CLOUD_IDENTITY_HINT = "the chart's value allowed.cloudIdentity does not let a sampling use the credentials of its node"
# The driver only knows that it has no workers. Their pods may show why.
_REASONS_WITHOUT_WORKERS = (FailureReason.WORKER_LOST, FailureReason.UNSCHEDULABLE)


def completed(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> Transition | None:
    """Completes the sampling if the driver has stored all samples; else None."""
    if not isinstance(assessment.driver, DriverSucceeded):
        return None
    sampling, result = observed.sampling, assessment.driver.result
    png = final_preview(observed, result)
    stored = "sample is" if result.samples == 1 else "samples are"
    message = f"{result.samples:,} {stored} stored at {output_uri(sampling)}."
    if draft.status.cluster and draft.status.cluster.repair is not None:
        draft = draft.set(repaired=draft.status.cluster.repair)
    draft = end(draft, sampling.spec, "Complete", message)
    draft = draft.set(
        phase=Phase.SUCCEEDED,
        completion_time=draft.now,
        failure=None,
        progress=progress(result.samples, result.samples).model_copy(update={"last_update_time": draft.now}),
        output=Result(
            uri=output_uri(sampling),
            manifest_sha256=result.manifest_sha256,
            grid=preview_name(sampling.metadata) if png else preview_config_map(observed, draft),
        ),
    )
    draft = draft.set_condition(ConditionType.COMPLETE, True, "AllSamplesStored", message)
    return Transition(draft, before_write=(WritePreview(png),) if png else ())


def driver_ended(observed: Observed, assessment: Assessment, draft: StatusBuilder) -> StatusBuilder | None:
    """Ends the attempt if the driver has failed, or has finished while a larger cluster is needed; else None."""
    spec = observed.sampling.spec
    match assessment.driver:
        case DriverMissing() if larger_plan(spec, draft.status):
            message = "More samples are requested than this cluster was planned for."
            return end(draft, spec, "Grown", message).set(phase=Phase.PENDING)
        case DriverFailed(error, log):
            uncounted = other_hardware.driver_found(observed, draft, error)
            if uncounted:
                return uncounted
            if error.reason in _REASONS_WITHOUT_WORKERS and other_hardware.keeps_out(observed, draft.status):
                return other_hardware.wait(draft, spec)
            return fail(draft, spec, _problem(observed, assessment, error), _hint(observed, error), log)
    return None


def _problem(observed: Observed, assessment: Assessment, error: FailedOutcome) -> Problem:
    """Returns why the driver failed, with what its pods show if it lacked workers."""
    message = as_sentence(_RESUME_COMMAND.sub("", error.message))
    reason = next((it for it in FailureReason if it == error.reason), FailureReason.DRIVER_FAILED)
    killed = worker_out_of_memory(observed.cluster_pods) if reason is FailureReason.WORKER_LOST else None
    pods = assessment.pod_problem
    if killed:
        reason, message = FailureReason.OUT_OF_MEMORY, f"{message} The worker pod {killed} ran out of memory."
    elif reason in _REASONS_WITHOUT_WORKERS and pods:
        message = f"{message} {pods.message}"
        if reason is FailureReason.UNSCHEDULABLE:
            return replace(pods, message=message)
    return Problem(reason, message, certain=True)


def _hint(observed: Observed, error: FailedOutcome) -> str:
    """Returns the driver's hint, reworded for a sampling; "" if it is about the command line only."""
    if observed.sampling.spec.credentials_secret_ref is None and _MISSING_CREDENTIALS.search(error.message):
        return _CREDENTIALS_HINT if observed.limits.cloud_identity else f"{_CREDENTIALS_HINT}; {_CLOUD_IDENTITY_HINT}"
    if error.other_hardware_ips:
        return other_hardware.HINT
    return "" if _COMMAND_LINE_HINT.search(error.hint) else error.hint
