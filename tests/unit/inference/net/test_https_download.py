"""Checkpoint downloads from an HTTPS server on this machine: redirects, certificates, retries and size limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import fetch
from ddpm_inference.errors import ModelNotFound, ModelRejected
from ddpm_inference.net import https_download
from ddpm_inference.net.https_download import MAX_REDIRECTS, RETRY_DELAYS
from tests.support.tls import Handler, HttpsServer, create_certificate, https_server

WEIGHTS = bytes(range(256)) * 9000
MIB = 1 << 20


def response(status: int, body: bytes = b"", **headers: object) -> Handler:
    """Returns a handler that sends a response. A header overrides the body's Content-Length; None omits it."""

    def respond(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()
        request.wfile.write(body)

    return respond


@pytest.fixture(autouse=True)
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records the delays between attempts instead of waiting."""
    delays: list[float] = []
    monkeypatch.setattr(https_download, "time", type("", (), {"sleep": delays.append, "monotonic": time.monotonic}))
    return delays


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpsServer]:
    certificate = create_certificate("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with https_server({}, certificate) as server:
        yield server


def test_a_download_sends_nothing_of_the_environment(server: HttpsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    server.handlers["/a%20b.pt?version=3&x=%2F"] = response(200, WEIGHTS)
    assert fetch(f"{server.url}/a b.pt?version=3&x=%2F") == WEIGHTS
    assert {"Host", "Accept-Encoding", "User-Agent"} == server.headers.keys()


def test_redirects_are_followed(server: HttpsServer) -> None:
    server.handlers |= {
        "/model": response(302, Location="/storage/model?signature=1"),
        "/storage/model?signature=1": response(307, Location=f"{server.url}/there"),
        "/there": response(200, WEIGHTS),
    }
    assert fetch(f"{server.url}/model") == WEIGHTS


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://localhost/model", "only https URLs are allowed"),
        ("file:///etc/passwd", "only https URLs are allowed"),
        ("https://me:secret@localhost/model", "URLs with embedded credentials are not allowed"),
        (
            "https://169.254.169.254/latest/meta-data",
            "169.254.169.254 is a link-local or cloud metadata address",
        ),
        ("https://[::ffff:169.254.169.254]/latest", "is a link-local or cloud metadata address"),
        ("https://[64:ff9b::a9fe:a9fe]/latest", "is a link-local or cloud metadata address"),
        ("https://2852039166/latest", "169.254.169.254 is a link-local or cloud metadata address"),
        ("https://[", "redirects to a malformed URL"),
        (f"https://{'a' * 70}.example/", "is not a valid host"),
    ],
)
def test_a_redirect_to_a_forbidden_url_is_refused(server: HttpsServer, location: str, message: str) -> None:
    server.handlers["/model"] = response(302, Location=location)
    with pytest.raises(ModelNotFound) as error:
        fetch(f"{server.url}/model")
    assert message in error.value.message
    assert "secret" not in error.value.message
    assert server.requests == {"/model": 1}


def test_redirects_are_bounded(server: HttpsServer) -> None:
    server.handlers["/model"] = response(302, Location="/model")
    with pytest.raises(ModelNotFound, match=f"localhost redirects more than {MAX_REDIRECTS} times"):
        fetch(f"{server.url}/model")
    assert server.requests["/model"] == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", False), ("elsewhere.example", True)], ids=["untrusted", "of another host"]
)
def test_a_server_without_a_trusted_certificate_gets_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    certificate = create_certificate(name, tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with https_server({"/model": response(200, WEIGHTS)}, certificate) as server:
        with pytest.raises(ModelNotFound, match="localhost has no trusted certificate"):
            fetch(f"{server.url}/model")
        assert not server.requests


def test_errors_omit_the_query_and_credentials_of_the_url(server: HttpsServer) -> None:
    server.handlers |= {"/gone?key=hunter2": response(404), "/private?key=hunter2": response(401)}
    with pytest.raises(ModelNotFound, match="/gone is not there: localhost answers 404") as gone:
        fetch(f"{server.url}/gone?key=hunter2")
    with pytest.raises(ModelNotFound, match="/private cannot be read: localhost answers 401") as private:
        fetch(f"{server.url}/private?key=hunter2")
    with pytest.raises(ModelNotFound, match="URLs with embedded credentials are not allowed") as named:
        fetch(f"{server.url}/model".replace("//", "//me:hunter2@"))
    assert "without authentication" in private.value.hint
    assert all("hunter2" not in error.value.message for error in (gone, private, named))
    assert server.requests.total() == 2


def test_transient_errors_are_retried(server: HttpsServer, delays: list[float]) -> None:
    responses = [response(503), response(200, WEIGHTS[:1000], Content_Length=len(WEIGHTS)), response(200, WEIGHTS)]
    server.handlers["/model"] = lambda request: responses.pop(0)(request)
    assert fetch(f"{server.url}/model") == WEIGHTS
    assert delays == list(RETRY_DELAYS)
    server.handlers["/model"] = response(503)
    with pytest.raises(ModelNotFound, match="localhost answers 503"):
        fetch(f"{server.url}/model")
    assert server.requests["/model"] == 3 + 1 + len(RETRY_DELAYS)


def test_a_refused_connection_is_retried_and_reported(server: HttpsServer, delays: list[float]) -> None:
    with pytest.raises(ModelNotFound, match=r"localhost does not answer: .*refused"):
        fetch("https://localhost:9/model")
    assert delays == list(RETRY_DELAYS)


def test_a_content_length_above_the_limit_is_refused(server: HttpsServer) -> None:
    server.handlers["/model"] = response(200, Content_Length=1 << 50)
    with pytest.raises(ModelRejected, match="has 1,125,899,906,842,624 bytes; a checkpoint may have"):
        fetch(f"{server.url}/model")


def test_an_endless_body_is_abandoned_at_the_limit(server: HttpsServer) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            sent += request.wfile.write(f"{MIB:x}\r\n".encode() + bytes(MIB) + b"\r\n")

    server.handlers["/model"] = endless
    with pytest.raises(https_download.TooLarge, match="more than 3,000,000 bytes"):
        https_download.download(f"{server.url}/model", 3_000_000)
    assert sent < 64 * MIB, "read more than the socket buffers hold"


@pytest.mark.parametrize("part", ["headers", "body"])
def test_a_server_that_sends_a_byte_at_a_time_is_abandoned(
    server: HttpsServer, monkeypatch: pytest.MonkeyPatch, delays: list[float], part: str
) -> None:
    abandoned = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        if part == "body":
            request.send_response(200)
            request.send_header("Content-Length", "1000000")
            request.end_headers()
        try:
            while True:
                request.wfile.write(b"x")
                request.wfile.flush()
                pause.wait(0.01)
        except OSError:
            abandoned.set()

    pause = threading.Event()
    server.handlers["/model"] = drip
    monkeypatch.setattr(https_download, "MAX_SECONDS", 0.5)
    with pytest.raises(ModelNotFound, match=r"localhost took longer than 0.5 seconds"):
        fetch(f"{server.url}/model")
    assert abandoned.wait(30)
    assert server.requests["/model"] == 1
    assert delays == []


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Content_Length": None}, "sends no Content-Length"),
        ({"Content_Encoding": "gzip"}, "sends a compressed file"),
    ],
)
def test_a_response_of_unknown_length_is_refused(server: HttpsServer, headers: dict[str, object], message: str) -> None:
    server.handlers["/model"] = response(200, WEIGHTS, **headers)
    with pytest.raises(ModelNotFound, match=message):
        fetch(f"{server.url}/model")
