"""Checkpoints by https, from a server with TLS on this machine: what is fetched, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from ddpm_inference.checkpoint import fetch
from ddpm_inference.errors import ModelNotFound, ModelRejected
from ddpm_inference.net import https_download as client
from ddpm_inference.net.https_download import MOST_REDIRECTS, PAUSES
from tests.support.tls import Answer, Web, certificate_of, served

WEIGHTS = bytes(range(256)) * 9000
MIB = 1 << 20


def says(status: int, body: bytes = b"", **headers: object) -> Answer:
    """An answer with the body's own length, unless the headers have another; None: without one."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            if value is not None:
                request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()
        request.wfile.write(body)

    return answer


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between tries: not at all."""
    pauses: list[float] = []
    monkeypatch.setattr(client, "time", type("", (), {"sleep": pauses.append}))
    return pauses


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    certificate = certificate_of("localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with served({}, certificate) as server:
        yield server


def test_a_checkpoint_comes_whole_and_nothing_of_the_environment_goes_along(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    web.answers["/a%20b.pt?version=3&x=%2F"] = says(200, WEIGHTS)
    assert fetch(f"{web.url}/a b.pt?version=3&x=%2F") == WEIGHTS
    assert {"Host", "Accept-Encoding", "User-Agent"} == web.headers.keys()


def test_a_checkpoint_that_lies_elsewhere_is_followed_to_there(web: Web) -> None:
    web.answers |= {
        "/model": says(302, Location="/storage/model?signature=1"),
        "/storage/model?signature=1": says(307, Location=f"{web.url}/there"),
        "/there": says(200, WEIGHTS),
    }
    assert fetch(f"{web.url}/model") == WEIGHTS


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("http://localhost/model", "the way there does not stay on https"),
        ("file:///etc/passwd", "the way there does not stay on https"),
        ("https://me:secret@localhost/model", "an address with a user or password in it is not asked"),
        (
            "https://169.254.169.254/latest/meta-data",
            "169.254.169.254 is an address of this machine's own or of a",
        ),
        ("https://[::ffff:169.254.169.254]/latest", "is an address of this machine's own or of a cloud's"),
        ("https://[64:ff9b::a9fe:a9fe]/latest", "is an address of this machine's own or of a cloud's"),
        ("https://2852039166/latest", "169.254.169.254 is an address of this machine's own or of a cloud's"),
        ("https://[", "sends to no address"),
        (f"https://{'a' * 70}.example/", "cannot be asked"),
    ],
)
def test_no_server_sends_a_run_where_it_has_no_business(web: Web, location: str, said: str) -> None:
    web.answers["/model"] = says(302, Location=location)
    with pytest.raises(ModelNotFound) as error:
        fetch(f"{web.url}/model")
    assert said in error.value.message
    assert "secret" not in error.value.message
    assert web.asked == {"/model": 1}


def test_a_server_that_sends_round_in_circles_is_left(web: Web) -> None:
    web.answers["/model"] = says(302, Location="/model")
    with pytest.raises(ModelNotFound, match=f"localhost sends elsewhere more than {MOST_REDIRECTS} times"):
        fetch(f"{web.url}/model")
    assert web.asked["/model"] == MOST_REDIRECTS + 1


@pytest.mark.parametrize(
    ("name", "trusted"), [("localhost", False), ("elsewhere.example", True)], ids=["unknown", "another's"]
)
def test_a_server_that_is_not_who_it_should_be_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trusted: bool
) -> None:
    certificate = certificate_of(name, tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with served({"/model": says(200, WEIGHTS)}, certificate) as web:
        with pytest.raises(ModelNotFound, match="localhost has no certificate to trust"):
            fetch(f"{web.url}/model")
        assert not web.asked


def test_what_is_not_there_or_not_for_everybody_is_said_without_what_the_address_holds(web: Web) -> None:
    web.answers |= {"/gone?key=hunter2": says(404), "/private?key=hunter2": says(401)}
    with pytest.raises(ModelNotFound, match="/gone is not there: localhost answers 404") as gone:
        fetch(f"{web.url}/gone?key=hunter2")
    with pytest.raises(ModelNotFound, match="/private cannot be read: localhost answers 401") as private:
        fetch(f"{web.url}/private?key=hunter2")
    with pytest.raises(ModelNotFound, match="with a user or password in it is not asked") as named:
        fetch(f"{web.url}/model".replace("//", "//me:hunter2@"))
    assert "without a login" in private.value.hint
    assert all("hunter2" not in error.value.message for error in (gone, private, named))
    assert web.asked.total() == 2


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(web: Web, waited: list[float]) -> None:
    answers = [says(503), says(200, WEIGHTS[:1000], Content_Length=len(WEIGHTS)), says(200, WEIGHTS)]
    web.answers["/model"] = lambda request: answers.pop(0)(request)
    assert fetch(f"{web.url}/model") == WEIGHTS
    assert waited == list(PAUSES)
    web.answers["/model"] = says(503)
    with pytest.raises(ModelNotFound, match="localhost answers 503"):
        fetch(f"{web.url}/model")
    assert web.asked["/model"] == 3 + 1 + len(PAUSES)


def test_nobody_at_home_is_said(web: Web, waited: list[float]) -> None:
    with pytest.raises(ModelNotFound, match=r"localhost does not answer: .*refused"):
        fetch("https://localhost:9/model")
    assert waited == list(PAUSES)


def test_a_file_that_is_said_to_be_huge_is_not_begun(web: Web) -> None:
    web.answers["/model"] = says(200, Content_Length=1 << 50)
    with pytest.raises(ModelRejected, match="has 1,125,899,906,842,624 bytes; a checkpoint may have"):
        fetch(f"{web.url}/model")


def test_a_file_without_an_end_is_left_at_the_bound(web: Web) -> None:
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.protocol_version = "HTTP/1.1"
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        while True:
            sent += request.wfile.write(f"{MIB:x}\r\n".encode() + bytes(MIB) + b"\r\n")

    web.answers["/model"] = endless
    with pytest.raises(client.TooLarge, match="more than 3,000,000 bytes"):
        client.read_at_most(f"{web.url}/model", 3_000_000)
    assert sent < 64 * MIB, "more than the network's own buffers hold was taken"


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Content_Length": None}, "does not say how long the file is"),
        ({"Content_Encoding": "gzip"}, "sends the file compressed"),
    ],
)
def test_an_answer_that_cannot_be_checked_is_refused(web: Web, headers: dict[str, object], said: str) -> None:
    web.answers["/model"] = says(200, WEIGHTS, **headers)
    with pytest.raises(ModelNotFound, match=said):
        fetch(f"{web.url}/model")
