"""Storage backend for a prefix in an S3 bucket.

Endpoint and credentials come from the usual AWS_* variables and files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import s3fs
from botocore.exceptions import ClientError

from ddpm_inference.errors import StorageFailed
from ddpm_inference.net.s3 import connection, read_at_most
from ddpm_inference.store.s3_errors import S3_ERRORS, error_code, explain
from ddpm_inference.store.storage_backend import MAX_VERSION_LENGTH, ListedFile, Writer

MIN_PART_BYTES = 16 * 2**20
MAX_PARTS = 10_000
MAX_KEYS_PER_DELETE = 1000
MAX_CONCURRENT_READS = 8
MAX_LIST_PAGES = 1100
"""Of one listing, 1000 files each: more than a run has shards. A hostile server could send pages without end."""


@dataclass(frozen=True)
class Bucket:
    """Objects below ``s3://bucket/prefix``. Holds no connection, so it can be pickled to workers.

    Concurrent writers are allowed. Objects appear atomically: by one PUT, or when a multipart upload completes.
    Listings call the API directly, because s3fs's `ls` caches, and lists the parent as well.
    """

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def writable_by_workers(self) -> bool:
        return True

    def exists(self) -> bool:
        return True

    def sizes(self, folder: str) -> dict[str, int]:
        return {name: file.bytes for name, file in self.listing(folder).items()}

    def listing(self, folder: str) -> dict[str, ListedFile]:
        prefix = self._key_prefix(folder)
        files: dict[str, ListedFile] = {}
        page: dict[str, str] = {}
        with self._storage_errors("listed", folder):
            for _ in range(MAX_LIST_PAGES):
                response = self._s3.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=prefix, Delimiter="/", **page)
                files |= {item["Key"].removeprefix(prefix): _listed(item) for item in response.get("Contents", ())}
                if not response.get("IsTruncated"):
                    return {name: file for name, file in files.items() if name}
                page = {"ContinuationToken": response.get("NextContinuationToken", "")}
        raise StorageFailed(
            f"{self.uri}/{folder} could not be listed: the listing exceeds {MAX_LIST_PAGES:,} pages",
            hint="choose another output URI",
        )

    def read(self, name: str, max_bytes: int) -> bytes | None:
        with self._storage_errors("read", name):
            try:
                return read_at_most(self._s3, self._path(name), max_bytes + 1)
            except FileNotFoundError as error:
                if error_code(error) == "NoSuchBucket":
                    raise
                return None

    def read_range(self, name: str, start: int, length: int) -> bytes | None:
        with self._storage_errors("read", name):
            try:
                return read_at_most(self._s3, self._path(name), length, start=start)
            except FileNotFoundError as error:
                if error_code(error) == "NoSuchBucket":
                    raise
                return None

    def read_each(self, names: Iterable[str], max_bytes: int) -> Iterator[bytes | None]:
        names = iter(names)
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            while batch := list(islice(names, MAX_CONCURRENT_READS)):
                yield from pool.map(partial(self.read, max_bytes=max_bytes), batch)

    def write(self, name: str, data: bytes) -> None:
        with self._storage_errors("written", name):
            self._s3.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        with self._storage_errors("written", name):
            try:
                self._s3.pipe_file(self._path(name), data, mode="create")
            except OSError as error:
                if error_code(error) in {"PreconditionFailed", "ConditionalRequestConflict"}:
                    return False
                raise
            return True

    def reserve(self, name: str, data: bytes) -> bool:
        return self.create(name, data)

    def update(self, name: str, data: bytes) -> bool:
        self.write(name, data)
        return True

    @contextmanager
    def stream(self, name: str, length: int) -> Iterator[Writer]:
        part = max(MIN_PART_BYTES, -(-length // MAX_PARTS))
        with self._storage_errors("written", name):
            self._discard_uploads(name)
            upload = self._s3.open(self._path(name), "wb", block_size=part, autocommit=False)
            try:
                yield upload
                upload.close()
                upload.commit()
            except BaseException:
                # Otherwise the upload's __del__ would complete it.
                upload.closed = True
                with suppress(*S3_ERRORS):
                    upload.discard()
                raise

    def copy(self, name: str, alias: str) -> None:
        with self._storage_errors("written", alias):
            self._s3.cp_file(self._path(name), self._path(alias))

    def remove(self, names: Iterable[str]) -> None:
        names = iter(names)
        while batch := list(islice(names, MAX_KEYS_PER_DELETE)):
            keys = [{"Key": self._key(name)} for name in batch]
            with self._storage_errors("removed", batch[0]):
                response = self._s3.call_s3(
                    "delete_objects", Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True}
                )
            if errors := response.get("Errors"):
                with self._storage_errors("removed", errors[0]["Key"].removeprefix(self._key_prefix(""))):
                    raise ClientError({"Error": errors[0]}, "DeleteObjects")

    def clean(self, folder: str) -> None:
        """Does nothing: an interrupted write leaves no object. The next write of the file discards its parts."""

    def remove_folder(self, folder: str) -> None:
        """Does nothing: a bucket has no folders."""

    def _discard_uploads(self, name: str) -> None:
        """Discards incomplete uploads of a file: they are invisible, but billed."""
        try:
            response = self._s3.call_s3("list_multipart_uploads", Bucket=self.bucket, Prefix=self._key(name))
            for upload in response.get("Uploads", ()):
                if upload["Key"] == self._key(name):
                    self._s3.call_s3(
                        "abort_multipart_upload",
                        Bucket=self.bucket,
                        Key=upload["Key"],
                        UploadId=upload["UploadId"],
                    )
        except PermissionError:
            # Writing needs no permission to list uploads; a lifecycle rule of the bucket can discard them instead.
            return

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".strip("/")

    def _key_prefix(self, folder: str) -> str:
        """Returns the prefix of the keys of a folder's files."""
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
    def _storage_errors(self, action: str, name: str) -> Iterator[None]:
        try:
            yield
        except S3_ERRORS as error:
            cause = explain(error)
            location = f"{self.uri}/{name}".rstrip("/")
            raise StorageFailed(f"{location} could not be {action}: {cause.what}", hint=cause.hint) from error


def _listed(item: Mapping[str, Any]) -> ListedFile:
    return ListedFile(item["Size"], str(item.get("ETag", ""))[:MAX_VERSION_LENGTH])
