"""Computes status.progress from the driver's progress document."""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.api import Progress
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.text import duration


def progress(done: int, total: int) -> Progress:
    """Returns the progress for a number of stored samples, without a rate."""
    return Progress(done=min(done, total), total=total, percent=100 * min(done, total) // total)


def stopped(previous: Progress) -> Progress:
    """Returns the same number of samples while no driver runs: without a rate and an estimated end."""
    return progress(previous.done, previous.total).model_copy(update={"last_update_time": previous.last_update_time})


def updated(previous: Progress, document: ProgressDocument, total: int, now: datetime) -> Progress:
    """Returns the progress that the driver reports. A driver that has not listed the stored samples yet reports none.

    Args:
        total: the samples requested now, which may be more than the driver was submitted with.
        now: becomes lastUpdateTime, but only if the driver reports something new.
    """
    if not document.total:
        return stopped(previous)
    rate, eta = document.samples_per_second, document.eta_seconds
    new = progress(document.done, total).model_copy(
        update={
            "samples_per_second": None if rate is None else _three_figures(rate),
            "estimated_remaining_seconds": None if eta is None else round(eta),
            "eta": None if eta is None else duration(eta),
            "last_update_time": previous.last_update_time,
        }
    )
    return new if new == previous else new.model_copy(update={"last_update_time": now})


def _three_figures(rate: float) -> str:
    """Formats a rate with three significant figures, without rounding whole numbers: 0.051, 4.20, 12.3, 1234."""
    places = next((places for least, places in ((100, 0), (10, 1), (1, 2)) if rate >= least), 3)
    return f"{rate:.{places}f}"
