"""The connection to an S3 server, and where it may not lead.

Which server it is, the environment says, and that server's answers may name others. So no redirect is followed, no
connection made to a closed address.
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

BROKEN_OFF = (ClientPayloadError, HTTPClientError, IncompleteReadError)
"""What an answer raises that has begun, and does not come to its end."""

_AT_A_TIME = 1 << 20

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


def connection() -> s3fs.S3FileSystem:
    """The S3 that the environment names. fsspec keeps one a process, and makes a new one after a fork."""
    return s3fs.S3FileSystem(
        use_listings_cache=False,
        config_kwargs={"connector_args": {"socket_factory": open_socket}, "http_session_cls": _Straight},
    )


def read_at_most(s3: s3fs.S3FileSystem, uri: str, most: int) -> bytes:
    """The first `most` bytes of an object, or all of it. s3fs's own reads take whatever a server sends.

    Raises:
        OSError, ValueError, ClientError, BotoCoreError, aiohttp.ClientError: as s3fs's own reads do.
    """

    async def read() -> bytes:
        bucket, key, _ = s3.split_path(uri)
        answer = await s3._call_s3("get_object", Bucket=bucket, Key=key)
        found = bytearray()
        async with answer["Body"] as body:
            while len(found) < most and (some := await body.read(min(_AT_A_TIME, most - len(found)))):
                found += some
        return bytes(found)

    for _ in range(s3.retries - 1):
        try:
            return bytes(sync(s3.loop, read))
        except BROKEN_OFF:
            continue
    return bytes(sync(s3.loop, read))


def open_socket(info: AddressInfo) -> socket.socket:
    """A socket for one address of a host, as aiohttp asks for it: after names were resolved.

    Raises:
        ClosedAddress: see `refuse_closed`.
    """
    family, kind, protocol, _, address = info
    refuse_blocked(str(address[0]), "S3 server is; correct AWS_ENDPOINT_URL")
    return socket.socket(family, kind, protocol)


class _Straight(AIOHTTPSession):  # type: ignore[misc]
    """aiobotocore's session. botocore's own follows no redirects; it should not either, and does."""

    async def _get_session(self, proxy_url: str | None) -> _StraightRequests:
        return _StraightRequests(await super()._get_session(proxy_url))


class _StraightRequests:
    def __init__(self, session: ClientSession) -> None:
        self._session = session

    async def request(self, method: str, **of_request: Any) -> ClientResponse:  # noqa: ANN401 - aiohttp's own
        return await self._session.request(method, **of_request, allow_redirects=False)
