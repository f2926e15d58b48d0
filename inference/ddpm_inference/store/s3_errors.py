"""What went wrong on the way to S3, in words a user can act on."""

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
"""All that s3fs lets out: what it translates, what botocore says itself, and what breaks while a body is read."""


class Cause(NamedTuple):
    what: str
    hint: str


_AGAIN = "then run the same command again: it does only what is missing"
_BUCKET = Cause("there is no such bucket", "create it, or correct the URI, or the endpoint in AWS_ENDPOINT_URL_S3")
_REJECTED = Cause(
    "the server does not accept the credentials",
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
)
_FORBIDDEN = Cause("the credentials do not allow it", "give them the right to list, read, write and delete there")
_ABSENT = Cause("there are no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")

_KNOWN = {
    "NoSuchBucket": _BUCKET,
    "InvalidAccessKeyId": _REJECTED,
    "SignatureDoesNotMatch": _REJECTED,
    "ExpiredToken": _REJECTED,
    "InvalidToken": _REJECTED,
    "AccessDenied": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
}


def code_of(error: BaseException) -> str | None:
    """The server's error code (``NoSuchBucket``), or None if the error is not an answer of the server."""
    answer = _answer(error)
    return answer.response["Error"].get("Code") if answer else None


def cause_of(error: BaseException) -> Cause:
    """What one of `S3_ERRORS` means, and what to do about it."""
    known = _KNOWN.get(code_of(error) or "")
    if known:
        return known
    answer = _answer(error)
    if answer:
        return Cause(str(answer), f"check the AWS_* environment and the S3 server, {_AGAIN}")
    if isinstance(error, NoCredentialsError | PartialCredentialsError | ProfileNotFound):
        return _ABSENT
    if isinstance(error, ConnectionError | HTTPClientError | aiohttp.ClientError | TimeoutError):
        return Cause(
            f"the S3 server does not answer ({error})",
            f"see that it runs and that AWS_ENDPOINT_URL_S3 is right, {_AGAIN}",
        )
    return Cause(str(error) or type(error).__name__, f"see to the S3 server, {_AGAIN}")


def _answer(error: BaseException | None) -> ClientError | None:
    """The server's own answer, which s3fs hangs below the OSError it makes of it."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return error
