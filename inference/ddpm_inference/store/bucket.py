"""A prefix in an S3 bucket as a place for results.

Endpoint and credentials come from the usual AWS_* environment and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice

import s3fs
from botocore.exceptions import ClientError

from ddpm_inference.errors import StorageFailed
from ddpm_inference.net.s3 import connection, read_at_most
from ddpm_inference.store.s3_errors import S3_ERRORS, cause_of, code_of
from ddpm_inference.store.storage_backend import Writer

SMALLEST_PART = 16 * 2**20
MOST_PARTS = 10_000
KEYS_A_DELETE = 1000
READS_AT_ONCE = 8
MOST_PAGES = 1000
"""Of a listing, with 1000 files each; a server could go on for ever."""


@dataclass(frozen=True)
class Bucket:
    """Objects below ``s3://bucket/prefix``. It holds no connection, so that it can travel to workers.

    Many may write at once. Objects appear whole: by one PUT, or when a multipart upload is completed.
    Listings are the server's own answers: s3fs's `ls` would remember, and look into the parent as well.
    """

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def reached_by_workers(self) -> bool:
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        start = self._start(folder)
        found: dict[str, int] = {}
        page: dict[str, str] = {}
        with self._explained("listed", folder):
            for _ in range(MOST_PAGES):
                answer = self._s3.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=start, Delimiter="/", **page)
                found |= {item["Key"].removeprefix(start): item["Size"] for item in answer.get("Contents", ())}
                if not answer.get("IsTruncated"):
                    return {name: size for name, size in found.items() if name}
                page = {"ContinuationToken": answer.get("NextContinuationToken", "")}
        raise StorageFailed(
            f"{self.uri}/{folder} could not be listed: the server's answer has no end after {MOST_PAGES:,} pages",
            hint="choose another output place",
        )

    def read(self, name: str, most: int) -> bytes | None:
        with self._explained("read", name):
            try:
                return read_at_most(self._s3, self._path(name), most + 1)
            except FileNotFoundError as error:
                if code_of(error) == "NoSuchBucket":
                    raise
                return None

    def read_each(self, names: Iterable[str], most: int) -> Iterator[bytes | None]:
        names = iter(names)
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            while batch := list(islice(names, READS_AT_ONCE)):
                yield from pool.map(partial(self.read, most=most), batch)

    def write(self, name: str, data: bytes) -> None:
        with self._explained("written", name):
            self._s3.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        with self._explained("written", name):
            try:
                self._s3.pipe_file(self._path(name), data, mode="create")
            except OSError as error:
                if code_of(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    return False
                raise
            return True

    @contextmanager
    def stream(self, name: str, length: int) -> Iterator[Writer]:
        part = max(SMALLEST_PART, -(-length // MOST_PARTS))
        with self._explained("written", name):
            self._discard_uploads(name)
            upload = self._s3.open(self._path(name), "wb", block_size=part, autocommit=False)
            try:
                yield upload
                upload.close()
                upload.commit()
            except BaseException:
                # An upload that is neither committed nor discarded would be completed by its own __del__.
                upload.closed = True
                with suppress(*S3_ERRORS):
                    upload.discard()
                raise

    def copy(self, name: str, alias: str) -> None:
        with self._explained("written", alias):
            self._s3.cp_file(self._path(name), self._path(alias))

    def remove(self, names: Iterable[str]) -> None:
        names = iter(names)
        while batch := list(islice(names, KEYS_A_DELETE)):
            keys = [{"Key": self._key(name)} for name in batch]
            with self._explained("removed", batch[0]):
                answer = self._s3.call_s3("delete_objects", Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
            if refused := answer.get("Errors"):
                with self._explained("removed", refused[0]["Key"].removeprefix(self._start(""))):
                    raise ClientError({"Error": refused[0]}, "DeleteObjects")

    def clean(self, folder: str) -> None:
        """Nothing to do: a broken off write leaves no object. Its parts go when the file is next written."""

    def _discard_uploads(self, name: str) -> None:
        """Discards uploads of a file that were never completed: invisible, but paid for."""
        try:
            answer = self._s3.call_s3("list_multipart_uploads", Bucket=self.bucket, Prefix=self._key(name))
            for upload in answer.get("Uploads", ()):
                if upload["Key"] == self._key(name):
                    self._s3.call_s3(
                        "abort_multipart_upload",
                        Bucket=self.bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
        except PermissionError:
            # Who may not list uploads can still write; a lifecycle rule of the bucket does the same.
            return

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".strip("/")

    def _start(self, folder: str) -> str:
        """What the keys of a folder's files begin with."""
        key = self._key(folder)
        return f"{key}/" if key else ""

    def _path(self, name: str) -> str:
        return f"{self.bucket}/{self._key(name)}"

    @property
    def _s3(self) -> s3fs.S3FileSystem:
        s3 = connection()
        try:
            s3.connect()
        except ValueError as error:
            raise StorageFailed(
                f"{self.uri} cannot be reached: {error}", hint="correct AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL"
            ) from error
        return s3

    @contextmanager
    def _explained(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except S3_ERRORS as error:
            cause = cause_of(error)
            where = f"{self.uri}/{name}".rstrip("/")
            raise StorageFailed(f"{where} could not be {action}: {cause.what}", hint=cause.hint) from error
