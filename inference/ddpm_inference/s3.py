"""The connection to an S3 server, and where it may not lead.

Which server it is, the environment says, and that server's answers may name others. A run stands inside of a
cluster, where addresses mean more than outside. So no redirect is followed, and no connection is made to what
every machine has at a known address of its own, such as a cloud's metadata service with the node's credentials.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import s3fs
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from aiohttp import ClientPayloadError, ClientResponse, ClientSession
from botocore.exceptions import HTTPClientError, IncompleteReadError
from fsspec.asyn import sync

CLOSED = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "::/128",
            "fe80::/10",
            "fd00:ec2::/32",
            "fd20:ce::254/128",
        ),
    )
)
"""This machine's own links, and the metadata services of AWS, Google, Azure, Alibaba, Oracle and their like."""

_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48")))
"""IPv6 addresses whose last 32 bits are the IPv4 address that a NAT64 gateway connects to (RFC 6052, RFC 8215)."""

BROKEN_OFF = (ClientPayloadError, HTTPClientError, IncompleteReadError)
"""What an answer raises that has begun, and does not come to its end."""

_AT_A_TIME = 1 << 20

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class ClosedAddress(Exception):
    """A connection that is not made. The message says to which address."""


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


def is_closed(address: str) -> bool:
    """Whether an IP address is none that samples or checkpoints could be at."""
    found = ip_address(address.partition("%")[0])
    leads_to = (_carried(found) if isinstance(found, IPv6Address) else None) or found
    return any(leads_to in network for network in CLOSED)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries, and a gateway would connect to."""
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def open_socket(info: AddressInfo) -> socket.socket:
    """A socket for one address of a host, as aiohttp asks for it: after names were resolved.

    Raises:
        ClosedAddress: if it is one of `CLOSED`.
    """
    family, kind, protocol, _, address = info
    if is_closed(str(address[0])):
        raise ClosedAddress(
            f"{address[0]} is an address of this machine's own or of a cloud's metadata service, where no S3 "
            "server is; correct AWS_ENDPOINT_URL"
        )
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
