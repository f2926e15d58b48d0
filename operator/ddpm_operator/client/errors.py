"""Errors that the client raises. Each has a message (what is wrong, and where) and a hint (what to do)."""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """A request could not be carried out.

    Args:
        message: what is wrong, and where.
        hint: what the user can do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(ClientError):
    """The requested object does not exist, or does not exist yet."""


class RequestRejected(ClientError):
    """The request is invalid: the API server, or the client before it, rejected it."""


class PipelineRejected(RequestRejected):
    """A local folder is not a pipeline that can be drawn."""

    def __init__(self, message: str, hint: str = "give the folder of a DDPM of pixels, saved by diffusers") -> None:
        super().__init__(message, hint)


class Conflict(RequestRejected):
    """Fields are owned by other field managers, which have set other values.

    Args:
        fields: field path -> its field manager, such as `spec.samples` -> `kubectl-client-side-apply`.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        managers = " and ".join(dict.fromkeys(fields.values()))
        super().__init__(
            f"{', '.join(fields)} {'has a different value' if len(fields) == 1 else 'have different values'}, "
            f"set by {managers}",
            "change the field with the tool that set it (for kubectl: `kubectl apply -f` of the changed file), or use "
            "another name",
        )
        self.fields = fields


class Damaged(ClientError):
    """A stored file does not match what the sampling's status or manifest says."""


class NotAllowed(ClientError):
    """The user is not authenticated, or lacks a permission."""


class Unreachable(ClientError):
    """The API server, or a helper pod, did not respond."""


class SamplingFailed(ClientError):
    """The sampling has failed, so its output is incomplete."""
