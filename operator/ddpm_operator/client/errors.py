"""What can go wrong between a person and the cluster, each with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """Something that was asked for did not happen.

    Args:
        message: what was wrong, and where.
        hint: what to do.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(ClientError):
    """There is no such thing, or not yet."""


class RequestRejected(ClientError):
    """The API server does not take it as it is."""


class Conflict(RequestRejected):
    """Fields have other values, and somebody else has set them.

    Args:
        fields: each, and the field manager that has set it: `spec.samples` to `kubectl-client-side-apply`.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        managers = " and ".join(dict.fromkeys(fields.values()))
        super().__init__(
            f"{', '.join(fields)} {'has another value' if len(fields) == 1 else 'have other values'} there, "
            f"set by {managers}",
            "change it where it was set: what kubectl has applied, by `kubectl apply -f` of the changed file; or "
            "take another name",
        )
        self.fields = fields


class Damaged(ClientError):
    """What is stored is not what the sampling has stored."""


class NotAllowed(ClientError):
    """The user has no right to it."""


class Unreachable(ClientError):
    """No answer from the cluster, or from the pod that was to answer."""


class SamplingFailed(ClientError):
    """The sampling has failed, so there is nothing to be had of it."""
