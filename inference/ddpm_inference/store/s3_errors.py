"""Explains errors of S3 to users: the cause, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

S3_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)
"""All errors that s3fs raises: its own, those of botocore that it passes on, and those of reading a body."""


class Cause(NamedTuple):
    """What went wrong, and what the user can do."""

    what: str
    hint: str


_RESUME_HINT = "then run the same command again: it resumes"
_BUCKET = Cause("there is no such bucket", "create it, or correct the URI, or the endpoint in AWS_ENDPOINT_URL_S3")
_REJECTED = Cause(
    "the server rejected the credentials",
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
)
_FORBIDDEN = Cause("the credentials lack permission", "allow them to list, read, write and delete there")
_MISSING = Cause("there are no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")

_KNOWN = {
    "NoSuchBucket": _BUCKET,
    "InvalidAccessKeyId": _REJECTED,
    "SignatureDoesNotMatch": _REJECTED,
    "ExpiredToken": _REJECTED,
    "InvalidToken": _REJECTED,
    "AccessDenied": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
}


def error_code(error: BaseException) -> str | None:
    """Returns the server's error code (``NoSuchBucket``), or None if the server did not answer."""
    client_error = _client_error(error)
    return client_error.response["Error"].get("Code") if client_error else None


def explain(error: BaseException) -> Cause:
    """Returns the cause of one of `S3_ERRORS`."""
    known = _KNOWN.get(error_code(error) or "")
    if known:
        return known
    response = _client_error(error)
    if response:
        return Cause(str(response), f"check the AWS_* environment and the S3 server, {_RESUME_HINT}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return _MISSING
    if isinstance(error, ConnectionError | HTTPClientError | aiohttp.ClientError | TimeoutError):
        return Cause(
            f"the S3 server does not answer ({error})",
            f"check that it runs, and AWS_ENDPOINT_URL_S3, {_RESUME_HINT}",
        )
    return Cause(str(error) or type(error).__name__, f"check the S3 server, {_RESUME_HINT}")


def _client_error(error: BaseException | None) -> ClientError | None:
    """Returns the server's error response, which s3fs chains below its own OSError."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return error
