"""HTTPS download of one file: a GET with a verified certificate and a bounded response.

Public model hubs redirect to their storage, so redirects are followed: only to https, at most `MAX_REDIRECTS` times,
and never to a blocked address. No credentials, cookies or proxy settings of the environment are used.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from urllib.parse import quote, urljoin, urlsplit

from ddpm_inference.net.blocked_addresses import refuse_blocked

MAX_REDIRECTS = 5
TIMEOUT = 30.0
"""Seconds to connect, and for each read."""
MAX_SECONDS = 1800.0
"""For the whole download, with its redirects and retries: 4 GiB at 2.4 MB/s."""
RETRY_DELAYS = (1.0, 4.0)
"""Seconds before each retry of a transient error."""

_CHUNK_BYTES = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
# Characters that are not quoted: the URL may be quoted already, so "%" is among them.
_SAFE_IN_PATH = "/%:@!$&'()*+,;=~"
_SAFE_IN_QUERY = f"{_SAFE_IN_PATH}?"


class DownloadError(Exception):
    """The download failed. The message says why, and never contains the URL's query, which may be a signature.

    Args:
        transient: a retry may succeed.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class NotFound(DownloadError):
    """The server answered 404 or 410."""


class Forbidden(DownloadError):
    """The server answered 403. Object stores do so for missing files where listing is not allowed."""


class TooLarge(DownloadError):
    """The file exceeds the caller's limit."""


@dataclass(frozen=True)
class _Url:
    """A parsed https URL; `target` is its quoted path and query."""

    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, uri: str) -> _Url:
        try:
            parts = urlsplit(uri)
            if parts.scheme != "https" or not parts.hostname:
                raise DownloadError("only https URLs are allowed, also after redirects")
            if parts.username is not None or parts.password is not None:
                raise DownloadError("URLs with embedded credentials are not allowed")
            query = f"?{quote(parts.query, _SAFE_IN_QUERY)}" if parts.query else ""
            return cls(parts.hostname, parts.port or 443, quote(parts.path or "/", _SAFE_IN_PATH) + query)
        except ValueError as error:
            raise DownloadError(f"the URL is malformed: {error}") from error


def download(uri: str, max_bytes: int) -> bytes:
    """Downloads the file at an https URI, with retries.

    Args:
        uri: https://host[:port]/path[?query].
        max_bytes: the largest size that is accepted.

    Raises:
        NotFound: if the server has no such file.
        TooLarge: if the file exceeds `max_bytes`.
        DownloadError: for all else, such as more than `MAX_SECONDS`; the last attempt's error if there were several.
        BlockedAddress: see `refuse_blocked`.
    """
    deadline = time.monotonic() + MAX_SECONDS
    for delay in RETRY_DELAYS:
        try:
            return _download_once(uri, max_bytes, deadline)
        except DownloadError as error:
            if not error.transient:
                raise
        time.sleep(delay)
    return _download_once(uri, max_bytes, deadline)


def _download_once(uri: str, max_bytes: int, deadline: float) -> bytes:
    context = ssl.create_default_context()
    for _ in range(MAX_REDIRECTS + 1):
        url = _Url.parse(uri)
        connection = _Connection(url, context)
        try:
            with _closed_at(deadline, connection):
                response = _get(connection, url)
                if response.status not in _REDIRECTS:
                    return _read_body(response, url, max_bytes)
            uri = urljoin(uri, response.headers.get("Location", ""))
        except ssl.SSLCertVerificationError as error:
            raise DownloadError(f"{url.host} has no trusted certificate: {error.verify_message}") from error
        except (OSError, HTTPException) as error:
            if time.monotonic() >= deadline:
                raise DownloadError(f"{url.host} took longer than {MAX_SECONDS:g} seconds") from error
            if not isinstance(error, IncompleteRead):
                reason = str(error) or type(error).__name__
                raise DownloadError(f"{url.host} does not answer: {reason}", transient=True) from error
            raise DownloadError(
                f"{url.host} closed the connection in the middle of the file", transient=True
            ) from error
        except ValueError as error:
            raise DownloadError(f"{url.host} is not a valid host, or redirects to a malformed URL: {error}") from error
        finally:
            connection.close()
    raise DownloadError(f"{url.host} redirects more than {MAX_REDIRECTS} times")


@contextmanager
def _closed_at(deadline: float, connection: _Connection) -> Iterator[None]:
    """Shuts the connection's socket down at the deadline, which ends whatever read is in progress then.

    A limit for each read is not enough: a server could send one byte a read for ever.
    """
    timer = threading.Timer(deadline - time.monotonic(), connection.shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _get(connection: HTTPSConnection, url: _Url) -> HTTPResponse:
    connection.request("GET", url.target, headers={"Accept-Encoding": "identity", "User-Agent": "ddpm-sample"})
    return connection.getresponse()


def _read_body(response: HTTPResponse, url: _Url, max_bytes: int) -> bytes:
    outcome = f"{url.host} answers {response.status}"
    if response.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise NotFound(outcome)
    if response.status == HTTPStatus.FORBIDDEN:
        raise Forbidden(outcome)
    if response.status != HTTPStatus.OK:
        transient = (
            response.status == HTTPStatus.TOO_MANY_REQUESTS or response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        )
        raise DownloadError(outcome, transient=transient)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{url.host} sends a compressed file, although none was requested")
    if response.length is None and not response.chunked:
        raise DownloadError(f"{url.host} sends no Content-Length")
    if (response.length or 0) > max_bytes:
        raise TooLarge(f"{response.length:,} bytes")
    body = bytearray()
    while chunk := response.read(min(_CHUNK_BYTES, max_bytes + 1 - len(body))):
        body += chunk
    if len(body) > max_bytes:
        raise TooLarge(f"more than {max_bytes:,} bytes")
    if response.length:
        raise IncompleteRead(b"", response.length)
    return bytes(body)


class _Connection(HTTPSConnection):
    """Connects to the very address that was checked: a second DNS lookup could return another one."""

    def __init__(self, url: _Url, context: ssl.SSLContext) -> None:
        super().__init__(url.host, url.port, timeout=TIMEOUT, context=context)
        self._url = url
        self._tls = context
        self._is_shut_down = threading.Event()
        self._opened: ssl.SSLSocket | None = None

    def connect(self) -> None:
        opened = _open_socket(self._url)
        self.sock = self._tls.wrap_socket(opened, do_handshake_on_connect=False, server_hostname=self._url.host)
        # `sock` is None again while the body of a response without keep-alive is read.
        self._opened = self.sock
        if self._is_shut_down.is_set():
            raise TimeoutError("the time for the download is over")
        self.sock.do_handshake()

    def shut_down(self) -> None:
        """Ends every read and write of the connection, from any thread."""
        self._is_shut_down.set()
        if self._opened is not None:
            with suppress(OSError):
                # Not that of SSLSocket, which would make a concurrent read continue without TLS.
                socket.socket.shutdown(self._opened, socket.SHUT_RDWR)


def _open_socket(url: _Url) -> socket.socket:
    """Opens a TCP connection to the first address of the host that accepts one, after all were checked."""
    resolved = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    for *_, address in resolved:
        refuse_blocked(str(address[0]), "correct the URI of the checkpoint")
    failure: OSError | None = None
    for family, kind, protocol, _, address in resolved:
        opened = socket.socket(family, kind, protocol)
        opened.settimeout(TIMEOUT)
        try:
            opened.connect(address)
        except OSError as error:
            opened.close()
            failure = error
        else:
            return opened
    raise failure or OSError("its name resolves to no address")
