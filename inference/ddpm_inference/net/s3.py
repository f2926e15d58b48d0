"""The process's connection to an S3 server, without redirects and without blocked addresses.

The environment names the server (AWS_ENDPOINT_URL), and the server's responses may name others. Following them would
let a hostile server reach addresses inside the cluster.
"""

from __future__ import annotations

import socket
from typing import Any

import s3fs
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiohttp import ClientPayloadError, ClientResponse, ClientSession
from botocore.exceptions import HTTPClientError, IncompleteReadError
from fsspec.asyn import sync

from ddpm_inference.net.blocked_addresses import refuse_blocked

INTERRUPTED = (ClientPayloadError, HTTPClientError, IncompleteReadError)
"""What a response raises whose body ends too early."""

_CHUNK_BYTES = 1 << 20

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


def connection() -> s3fs.S3FileSystem:
    """Returns the S3 client that the environment configures. fsspec keeps one a process, and renews it after a fork."""
    return s3fs.S3FileSystem(
        use_listings_cache=False,
        config_kwargs={"connector_args": {"socket_factory": open_socket}, "http_session_cls": _NoRedirectSession},
    )


def read_at_most(s3: s3fs.S3FileSystem, uri: str, max_bytes: int, *, start: int = 0) -> bytes:
    """Reads the first `max_bytes` of an object, or all of it. s3fs's own reads accept as much as the server sends.

    Args:
        start: the offset to read from; there must be a byte at it.

    Raises:
        OSError, ValueError, ClientError, BotoCoreError, aiohttp.ClientError: as s3fs's own reads do.
    """

    async def read() -> bytes:
        bucket, key, _ = s3.split_path(uri)
        part = {"Range": f"bytes={start}-{start + max_bytes - 1}"} if start else {}
        response = await s3._call_s3("get_object", Bucket=bucket, Key=key, **part)
        received = bytearray()
        async with response["Body"] as body:
            while len(received) < max_bytes and (
                chunk := await body.read(min(_CHUNK_BYTES, max_bytes - len(received)))
            ):
                received += chunk
        return bytes(received)

    for _ in range(s3.retries - 1):
        try:
            return bytes(sync(s3.loop, read))
        except INTERRUPTED:
            continue
    return bytes(sync(s3.loop, read))  # the last attempt raises


def list_objects(s3: s3fs.S3FileSystem, uri: str, max_objects: int) -> dict[str, int] | None:
    """Returns key below the prefix -> size in bytes; None if there are more than `max_objects`.

    Raises:
        OSError, ValueError, ClientError, BotoCoreError, aiohttp.ClientError: as s3fs's own calls do.
    """
    bucket, key, _ = s3.split_path(uri)
    prefix = f"{key.rstrip('/')}/" if key.strip("/") else ""
    found: dict[str, int] = {}
    more: dict[str, str] = {}
    while True:
        page = s3.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        for item in page.get("Contents", ()):
            found[str(item["Key"]).removeprefix(prefix)] = int(item["Size"])
        if len(found) > max_objects:
            return None
        token = page.get("NextContinuationToken")
        if not page.get("IsTruncated") or not token or more.get("ContinuationToken") == token:
            return found
        more = {"ContinuationToken": str(token)}


def open_socket(info: AddressInfo) -> socket.socket:
    """Returns a socket for one resolved address of a host; aiohttp's socket factory.

    Raises:
        BlockedAddress: see `refuse_blocked`.
    """
    family, kind, protocol, _, address = info
    refuse_blocked(str(address[0]), "correct AWS_ENDPOINT_URL")
    return socket.socket(family, kind, protocol)


class _NoRedirectSession(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's session without redirects. botocore's own session follows none; aiobotocore's does."""

    async def _get_session(self, proxy_url: str | None) -> _NoRedirectRequests:
        return _NoRedirectRequests(await super()._get_session(proxy_url))


class _NoRedirectRequests:
    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **options: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's own
        return await self._session.request(method, **options, allow_redirects=False)
