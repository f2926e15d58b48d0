"""A prefix in an S3 bucket as a place for results.

Endpoint and credentials come from the usual AWS_* environment and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import aiohttp
import s3fs
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from ddpm_inference.errors import StorageFailed
from ddpm_inference.store.place import Writer

SMALLEST_PART = 16 * 2**20
MOST_PARTS = 10_000
KEYS_A_DELETE = 1000


@dataclass(frozen=True)
class Bucket:
    """Objects below ``s3://bucket/prefix``. It holds no connection, so that it can travel to workers.

    Many may write at once. Objects appear whole: by one PUT, or when a multipart upload is completed.
    """

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def sizes(self, folder: str) -> dict[str, int]:
        start = self._key(folder).rstrip("/") + "/" if self._key(folder) else ""
        found: dict[str, int] = {}
        page: dict[str, str] = {}
        with self._explained("listed", folder):
            while True:
                answer = self._s3.call_s3(
                    "list_objects_v2", Bucket=self.bucket, Prefix=start, Delimiter="/", **page
                )
                found |= {item["Key"].removeprefix(start): item["Size"] for item in answer.get("Contents", ())}
                if not answer.get("IsTruncated"):
                    return {name: size for name, size in found.items() if name}
                page = {"ContinuationToken": answer["NextContinuationToken"]}

    def read(self, name: str) -> bytes | None:
        with self._explained("read", name):
            try:
                data: bytes = self._s3.cat_file(self._path(name), max_concurrency=1)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None
            return data

    def read_each(self, names: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        return ((name, self.read(name)) for name in names)

    def write(self, name: str, data: bytes) -> None:
        with self._explained("written", name):
            self._s3.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        with self._explained("written", name):
            try:
                self._s3.pipe_file(self._path(name), data, mode="create")
            except OSError as error:
                if _code(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    return False
                raise
            return True

    @contextmanager
    def stream(self, name: str, length: int) -> Iterator[Writer]:
        part = max(SMALLEST_PART, -(-length // MOST_PARTS))
        with self._explained("written", name):
            upload = self._s3.open(self._path(name), "wb", block_size=part, autocommit=False)
            try:
                yield upload
                upload.close()
                upload.commit()
            except BaseException:
                # An upload that is neither committed nor discarded would be completed by its own __del__.
                upload.closed = True
                with suppress(*_S3_ERRORS):
                    upload.discard()
                raise

    def copy(self, name: str, alias: str) -> None:
        with self._explained("written", alias):
            self._s3.cp_file(self._path(name), self._path(alias))

    def remove(self, names: Iterable[str]) -> None:
        keys = iter([{"Key": self._key(name)} for name in names])
        while batch := list(islice(keys, KEYS_A_DELETE)):
            with self._explained("emptied", ""):
                answer = self._s3.call_s3(
                    "delete_objects", Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
                )
                for failed in answer.get("Errors", ()):
                    raise ClientError({"Error": failed}, "DeleteObjects")

    def clean(self, folder: str) -> None:
        """Nothing to do: a broken off write leaves no object."""

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".strip("/")

    def _path(self, name: str) -> str:
        return f"{self.bucket}/{self._key(name)}"

    @property
    def _s3(self) -> s3fs.S3FileSystem:
        # fsspec keeps one instance a process, and makes a new one after a fork.
        return s3fs.S3FileSystem(use_listings_cache=False)

    @contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except _S3_ERRORS as error:
            cause = _cause(error)
            where = f"{self.uri}/{name}".rstrip("/")
            raise StorageFailed(f"{where} could not be {action}: {cause.what}", hint=cause.hint) from error


_S3_ERRORS = (OSError, BotoCoreError, ClientError, aiohttp.ClientError)


class _Cause(NamedTuple):
    what: str
    hint: str


_BUCKET = _Cause(
    "there is no such bucket", "create it, or correct the URI, or the endpoint in AWS_ENDPOINT_URL_S3"
)
_REJECTED = _Cause(
    "the server does not accept the credentials",
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
)
_FORBIDDEN = _Cause("the credentials do not allow it", "give them the right to list, read, write and delete there")
_NONE = _Cause("there are no credentials", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")

_CAUSES = {
    "NoSuchBucket": _BUCKET,
    "InvalidAccessKeyId": _REJECTED,
    "SignatureDoesNotMatch": _REJECTED,
    "ExpiredToken": _REJECTED,
    "InvalidToken": _REJECTED,
    "AccessDenied": _FORBIDDEN,
    "AllAccessDisabled": _FORBIDDEN,
}


def _client_error(error: BaseException | None) -> ClientError | None:
    """The server's own answer, which s3fs hangs below the OSError it makes of it."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__
    return error


def _code(error: BaseException) -> str | None:
    answer = _client_error(error)
    return answer.response["Error"].get("Code") if answer else None


def _cause(error: BaseException) -> _Cause:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, ProfileNotFound)):
        return _NONE
    known = _CAUSES.get(_code(error) or "")
    return known or _Cause(
        str(_client_error(error) or error) or type(error).__name__,
        "see to the S3 server, then run the same command again: it does only what is missing",
    )
