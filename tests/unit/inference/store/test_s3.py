"""An S3 server sends a run nowhere else, and the environment sends it to no metadata service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from s3fs import S3FileSystem

from ddpm_inference.checkpoint import fetch
from ddpm_inference.errors import DdpmError, ModelNotFound, ModelRejected, OutputConflict, StorageFailed
from ddpm_inference.job import Shard
from ddpm_inference.net.blocked_addresses import is_blocked
from ddpm_inference.store import ShardRecord, Store, bucket
from ddpm_inference.store.uri import backend_for
from tests.support.s3 import Reconnect, reconnect
from tests.support.storing import an_identity, write_shards

__all__ = ["reconnect"]

LISTING = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>'
SHARD = "shards/000000000-000000007.npz"


@dataclass
class Server:
    """Answers every request in one way.

    Attributes:
        asked: the paths that were asked for.
    """

    status: int
    headers: dict[str, str]
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def served(status: int, **headers: str) -> Iterator[Server]:
    server = Server(status, headers)

    class Handler(BaseHTTPRequestHandler):
        def parse_request(self) -> bool:
            if super().parse_request():
                server.asked.append(self.path)
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            return False

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, reconnect: Reconnect) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    reconnect()
    yield monkeypatch
    reconnect()


@pytest.mark.parametrize("status", [302, 307])
def test_a_server_that_sends_elsewhere_is_not_followed(use: pytest.MonkeyPatch, status: int) -> None:
    with served(200) as elsewhere, served(status, Location=f"{elsewhere.url}/latest/meta-data") as server:
        use.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(ModelNotFound):
            fetch("s3://bucket/model.safetensors")
        with pytest.raises(StorageFailed):
            backend_for("s3://bucket/digits").write("job.json", b"{}")
        assert server.asked
        assert elsewhere.asked == []


class Liar:
    """A server that says one size and sends another; `sent` is in bytes.

    It has `listing` for who asks for one, and says of whatever is to be created that it is there.
    """

    def __init__(self, says: int, sends: int, listing: str) -> None:
        self.says, self.sends, self.sent = says, sends, 0
        self.listing = listing.encode()
        self.asked: list[str] = []

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if "list-type=2" in request.path:
            self.list(request)
            return
        self.asked.append(request.command)
        request.send_response(200)
        request.send_header("Content-Length", str(self.says if request.command == "HEAD" else self.sends))
        request.end_headers()
        block = bytes(1 << 20)
        with suppress(ConnectionError):
            while request.command == "GET" and self.sent < self.sends:
                self.sent += request.wfile.write(block[: self.sends - self.sent])

    def list(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append("LIST")
        _send(request, 200, self.listing)

    def refuse(self, request: BaseHTTPRequestHandler) -> None:
        _send(request, 412, b"<Error><Code>PreconditionFailed</Code></Error>")


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def lying(says: int, sends: int, listing: str = "") -> Iterator[tuple[Liar, str]]:
    liar = Liar(says, sends, listing)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            liar.answer(self)

        do_HEAD = do_GET  # noqa: N815 - http.server's own name

        def do_PUT(self) -> None:
            liar.refuse(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield liar, f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()


def test_no_more_is_taken_of_a_checkpoint_than_its_server_has_said(use: pytest.MonkeyPatch) -> None:
    with lying(says=1000, sends=8 << 30) as (liar, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="is not of the 1,000 bytes that its server says"):
            fetch("s3://bucket/model.safetensors")
    assert liar.sent < 64 << 20, "more than the network's own buffers hold was taken"


READS: dict[str, Callable[[Store], object]] = {
    "job.json": lambda store: store.read_identity(),
    "manifest.json": lambda store: store.read_manifest(),
    "a shard": lambda store: store.scan(an_identity()),
    "a shard that is written again": lambda store: write_shards(store, an_identity(), [Shard(first=0, last=7)]),
    "a shard on record": lambda store: store.read_shard(ShardRecord(first=0, last=7, bytes=1000, sha256="0" * 64)),
}


@pytest.mark.parametrize("what", READS)
def test_no_more_is_taken_of_a_result_than_a_run_can_have_stored(use: pytest.MonkeyPatch, what: str) -> None:
    listing = f"{LISTING}<Contents><Key>digits/{SHARD}</Key><Size>1000</Size></Contents></ListBucketResult>"
    with lying(says=1000, sends=8 << 30, listing=listing) as (liar, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        with suppress(OutputConflict, StorageFailed):
            READS[what](Store.open("s3://bucket/digits"))
    assert "GET" in liar.asked
    assert liar.sent < 64 << 20, "more than the network's own buffers hold was taken"


def test_a_shard_that_a_server_makes_longer_does_not_count(use: pytest.MonkeyPatch) -> None:
    listing = f"{LISTING}<Contents><Key>digits/{SHARD}</Key><Size>1000</Size></Contents></ListBucketResult>"
    with lying(says=1000, sends=64 << 20, listing=listing) as (_, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        records, [warning] = Store.open("s3://bucket/digits").scan(an_identity())
    assert records == []
    assert warning == (f"s3://bucket/digits/{SHARD} does not count: it is longer than the 4,608 bytes that it can have")


def test_a_listing_that_has_no_end_is_an_error(use: pytest.MonkeyPatch) -> None:
    use.setattr(bucket, "MOST_PAGES", 5)
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
    with lying(says=0, sends=0, listing=f"{LISTING}{more}</ListBucketResult>") as (liar, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageFailed, match="s3://bucket/digits/shards could not be listed: the server's answer"):
            backend_for("s3://bucket/digits").sizes("shards")
    assert liar.asked == ["LIST"] * 5


def test_a_checkpoint_that_is_said_to_be_huge_is_not_asked_for(use: pytest.MonkeyPatch) -> None:
    with lying(says=1 << 50, sends=1) as (liar, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="a checkpoint may have"):
            fetch("s3://bucket/model.safetensors")
    assert set(liar.asked) == {"HEAD"}


def test_a_checkpoint_that_is_shorter_than_it_is_said_to_be_is_refused(use: pytest.MonkeyPatch) -> None:
    with lying(says=1000, sends=10) as (_, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="is not of the 1,000 bytes"):
            fetch("s3://bucket/model.safetensors")


def test_a_checkpoint_of_several_reads_comes_whole(use: pytest.MonkeyPatch) -> None:
    with lying(says=5_000_000, sends=5_000_000) as (_, url):
        use.setenv("AWS_ENDPOINT_URL", url)
        assert fetch("s3://bucket/model.safetensors") == bytes(5_000_000)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]"])
def test_a_metadata_service_is_no_s3_server_of_either_protocol(use: pytest.MonkeyPatch, host: str) -> None:
    use.setenv("AWS_ENDPOINT_URL", f"http://{host}:80")
    asked: list[DdpmError] = []
    with pytest.raises(ModelNotFound) as model:
        fetch("s3://latest/meta-data/iam/security-credentials")
    asked.append(model.value)
    with pytest.raises(StorageFailed) as output:
        backend_for("s3://latest/meta-data").read("job.json", 2**20)
    asked.append(output.value)
    for error in asked:
        assert "is an address of this machine's own or of a cloud's metadata service" in error.message
        assert "AWS_ENDPOINT_URL" in error.message + error.hint


@pytest.mark.parametrize(
    ("address", "closed"),
    [
        ("169.254.169.254", True),
        ("169.254.170.2", True),
        ("::ffff:169.254.169.254", True),
        ("192.0.0.192", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("64:ff9b:1::a9fe:a9fe", True),
        ("64:ff9b::203.0.113.7", False),
        ("2002:a9fe:a9fe::1", True),
        ("2002:cb00:7107::1", False),
        ("2001:0:cb00:7107:8000:0:5601:5601", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("0.0.0.1", True),
        ("::", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("::1", False),
        ("52.217.0.1", False),
        ("2001:db8::1", False),
    ],
)
def test_what_is_closed(address: str, closed: bool) -> None:
    assert is_blocked(address) is closed


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "http://me:planted-password@127.0.0.1:9"])
def test_no_error_tells_credentials(use: pytest.MonkeyPatch, server: str) -> None:
    use.setenv("AWS_ENDPOINT_URL", server)
    use.setenv("AWS_SECRET_ACCESS_KEY", "planted-key")
    use.setenv("AWS_SESSION_TOKEN", "planted-session")
    place = backend_for("s3://bucket/digits")
    for do in (
        lambda: fetch("s3://bucket/m.pt"),
        lambda: place.read("job.json", 2**20),
        lambda: place.sizes("shards"),
    ):
        with pytest.raises(DdpmError) as error:
            do()
        assert "planted" not in error.value.message + error.value.hint
