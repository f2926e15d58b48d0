"""From what is seen of a sampling to what is done next. Pure: the time is handed in."""

from __future__ import annotations

from datetime import datetime

from ddpm_operator.actions import Decision
from ddpm_operator.observed import Observed


def reconcile(observed: Observed, now: datetime) -> Decision:
    """What follows from a look at a sampling.

    Args:
        observed: read as `ddpm_operator.observed` asks for.
        now: with a time zone.
    """
    raise NotImplementedError
