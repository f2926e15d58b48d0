"""The preview of a sampling: a ConfigMap with a PNG of samples, written while the driver runs and at its end."""

from __future__ import annotations

import base64
from datetime import timedelta

from ddpm_operator.manifests.naming import preview_name
from ddpm_operator.reconcile.actions import CopyPreview
from ddpm_operator.reconcile.attempts import rendering
from ddpm_operator.reconcile.observed import ActionErrorKind, Observed
from ddpm_operator.reconcile.progress_document import FinishedOutcome, ProgressDocument
from ddpm_operator.reconcile.status_builder import StatusBuilder

# The driver's limit as well, see `ddpm_inference.progress_server.thumbnail`. A ConfigMap holds at most 1 MiB.
MAX_PREVIEW_BYTES = 48 * 1024
PREVIEW_INTERVAL = timedelta(seconds=30)


def copy_preview(
    observed: Observed, draft: StatusBuilder, document: ProgressDocument, head_ip: str
) -> tuple[CopyPreview, ...]:
    """Returns the action that copies the preview of a running driver, if it is time for one and a sample is stored."""
    last = observed.preview_attempted_at
    due = document.done > 0 and (last is None or draft.now >= last + PREVIEW_INTERVAL)
    return (CopyPreview(rendering(observed, draft), head_ip),) if due else ()


def preview_config_map(observed: Observed, draft: StatusBuilder) -> str | None:
    """Returns the name of the preview's ConfigMap, if this operator or one before it has written it."""
    if observed.preview_written:
        return preview_name(observed.sampling.metadata)
    return draft.status.output.grid if draft.status.output else None


def final_preview(observed: Observed, result: FinishedOutcome) -> bytes | None:
    """Returns the PNG that the driver reports at its end.

    Returns None if there is none, if it is larger than `MAX_PREVIEW_BYTES`, or if the last attempt to write it
    failed: a sampling completes without its preview.
    """
    if ActionErrorKind.PREVIEW in [error.kind for error in observed.action_errors]:
        return None
    try:
        png = base64.b64decode(result.grid or "", validate=True)
    except ValueError:  # not base64, or not even ASCII
        return None
    return png if 0 < len(png) <= MAX_PREVIEW_BYTES else None
