"""A file by https, as a checkpoint is fetched: one GET, whose server is checked and whose answer is bounded.

Redirects are followed, as public collections of models send each file to where it is stored; but only to https, a
few times, and nowhere that is closed. No login, cookie or proxy of the environment goes along.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from urllib.parse import quote, urljoin, urlsplit

from ddpm_inference.net.blocked_addresses import refuse_blocked

MOST_REDIRECTS = 5
TIMEOUT = 30.0
"""Seconds for a connection, and for each piece of an answer."""
PAUSES = (1.0, 4.0)
"""Seconds before another try, of a server or a network that may be well again by then."""

_AT_A_TIME = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)
# What stands for itself in an address that may have been quoted before.
_PATH = "/%:@!$&'()*+,;=~"
_QUERY = f"{_PATH}?"


class DownloadError(Exception):
    """The file did not come. The message says why, without what an address may hold behind its question mark.

    Args:
        passes: another try may go well.
    """

    def __init__(self, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes


class Absent(DownloadError):
    """The server says that there is no such file."""


class TooLarge(DownloadError):
    """The file is larger than is taken."""


@dataclass(frozen=True)
class _Place:
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, uri: str) -> _Place:
        try:
            parts = urlsplit(uri)
            if parts.scheme != "https" or not parts.hostname:
                raise DownloadError("the way there does not stay on https")
            if parts.username is not None or parts.password is not None:
                raise DownloadError("an address with a user or password in it is not asked")
            query = f"?{quote(parts.query, _QUERY)}" if parts.query else ""
            return cls(parts.hostname, parts.port or 443, quote(parts.path or "/", _PATH) + query)
        except ValueError as error:
            raise DownloadError(f"its address cannot be read: {error}") from error


def read_at_most(uri: str, most: int) -> bytes:
    """The file at an https URI.

    Args:
        uri: https://host[:port]/path[?query].
        most: bytes that it may have.

    Raises:
        Absent, TooLarge: what they say.
        WebFault: for all else, the last try's if there were several.
        ClosedAddress: see `refuse_closed`.
    """
    for pause in PAUSES:
        try:
            return _read(uri, most)
        except DownloadError as fault:
            if not fault.passes:
                raise
        time.sleep(pause)
    return _read(uri, most)


def _read(uri: str, most: int) -> bytes:
    context = ssl.create_default_context()
    for _ in range(MOST_REDIRECTS + 1):
        place = _Place.of(uri)
        connection = _Connection(place, context)
        try:
            answer = _asked(connection, place)
            if answer.status not in _REDIRECTS:
                return _body(answer, place, most)
            uri = urljoin(uri, answer.headers.get("Location", ""))
        except ssl.SSLCertVerificationError as error:
            raise DownloadError(f"{place.host} has no certificate to trust: {error.verify_message}") from error
        except IncompleteRead as error:
            raise DownloadError(f"{place.host} broke off in the middle of the file", passes=True) from error
        except (OSError, HTTPException) as error:
            why = str(error) or type(error).__name__
            raise DownloadError(f"{place.host} does not answer: {why}", passes=True) from error
        except ValueError as error:
            raise DownloadError(f"{place.host} cannot be asked, or sends to no address: {error}") from error
        finally:
            connection.close()
    raise DownloadError(f"{place.host} sends elsewhere more than {MOST_REDIRECTS} times")


def _asked(connection: HTTPSConnection, place: _Place) -> HTTPResponse:
    connection.request("GET", place.target, headers={"Accept-Encoding": "identity", "User-Agent": "ddpm-sample"})
    return connection.getresponse()


def _body(answer: HTTPResponse, place: _Place, most: int) -> bytes:
    said = f"{place.host} answers {answer.status}"
    if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise Absent(said)
    if answer.status != HTTPStatus.OK:
        later = answer.status == HTTPStatus.TOO_MANY_REQUESTS or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise DownloadError(said, passes=later)
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise DownloadError(f"{place.host} sends the file compressed, which was not asked for")
    if answer.length is None and not answer.chunked:
        raise DownloadError(f"{place.host} does not say how long the file is")
    if (answer.length or 0) > most:
        raise TooLarge(f"{answer.length:,} bytes")
    found = bytearray()
    while some := answer.read(min(_AT_A_TIME, most + 1 - len(found))):
        found += some
    if len(found) > most:
        raise TooLarge(f"more than {most:,} bytes")
    if answer.length:
        raise IncompleteRead(b"", answer.length)
    return bytes(found)


class _Connection(HTTPSConnection):
    """Connects to the very address that was looked at: a name could mean another one the next time."""

    def __init__(self, place: _Place, context: ssl.SSLContext) -> None:
        super().__init__(place.host, place.port, timeout=TIMEOUT, context=context)
        self._place = place
        self._tls = context

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(_open(self._place), server_hostname=self._place.host)


def _open(place: _Place) -> socket.socket:
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    for *_, address in found:
        refuse_blocked(str(address[0]), "checkpoint is; correct the URI")
    failed: OSError | None = None
    for family, kind, protocol, _, address in found:
        opened = socket.socket(family, kind, protocol)
        opened.settimeout(TIMEOUT)
        try:
            opened.connect(address)
        except OSError as error:
            opened.close()
            failed = error
        else:
            return opened
    raise failed or OSError("its name leads to no address")
