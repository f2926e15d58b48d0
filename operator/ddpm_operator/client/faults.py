"""What can go wrong between a person and the cluster, each with what to do about it."""

from __future__ import annotations


class ClientFault(Exception):
    """Something that was asked for did not happen.

    Args:
        message: what was wrong, and where.
        hint: what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(ClientFault):
    """There is no such thing, or not yet."""


class Refused(ClientFault):
    """The API server does not take it as it is."""


class Damaged(ClientFault):
    """What is stored is not what the sampling has stored."""


class NotAllowed(ClientFault):
    """The user has no right to it."""


class Unreachable(ClientFault):
    """No answer from the cluster, or from the pod that was to answer."""


class SamplingFailed(ClientFault):
    """The sampling has failed, so there is nothing to be had of it."""
