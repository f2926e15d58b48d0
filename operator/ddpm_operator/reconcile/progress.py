"""How far a sampling is, as its status says it."""

from __future__ import annotations

from datetime import datetime, timedelta

from ddpm_operator.api import Progress
from ddpm_operator.reconcile.progress_document import ProgressDocument
from ddpm_operator.text import duration

LEAST_BETWEEN_WRITES = timedelta(seconds=3)


def progress(done: int, total: int) -> Progress:
    """So many of so many samples, and nothing known of how fast."""
    return Progress(done=min(done, total), total=total, percent=100 * min(done, total) // total)


def stopped(former: Progress) -> Progress:
    """The same samples, and nobody who draws more of them: no rate, and no end to be foretold."""
    return progress(former.done, former.total).model_copy(update={"last_update_time": former.last_update_time})


def renewed(former: Progress, document: ProgressDocument, total: int, now: datetime) -> Progress:
    """The progress that the driver reports. One that has not looked yet what is stored reports none.

    Args:
        total: samples asked for now, which may be more than the driver knows.
        now: when it said so; kept only if it said anything new.
    """
    if not document.total:
        return stopped(former)
    rate, eta = document.samples_per_second, document.eta_seconds
    new = progress(document.done, total).model_copy(
        update={
            "samples_per_second": None if rate is None else _figure(rate),
            "estimated_remaining_seconds": None if eta is None else round(eta),
            "eta": None if eta is None else duration(eta),
            "last_update_time": former.last_update_time,
        }
    )
    return new if new == former else new.model_copy(update={"last_update_time": now})


def _figure(rate: float) -> str:
    """Three figures, as far as there are so many before the point: 0.051, 4.20, 12.3, 1234."""
    places = next((places for least, places in ((100, 0), (10, 1), (1, 2)) if rate >= least), 3)
    return f"{rate:.{places}f}"
