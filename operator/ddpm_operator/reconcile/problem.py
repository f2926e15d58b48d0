"""The type of a conclusion that something keeps an attempt from making progress."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_operator.api import FailureReason


@dataclass(frozen=True)
class Problem:
    """Something that keeps an attempt from making progress.

    Attributes:
        message: a sentence for the status.
        certain: waiting does not solve it, so the attempt fails at once.
    """

    reason: FailureReason
    message: str
    certain: bool
