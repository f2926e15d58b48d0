"""Hostile S3 servers: redirects, oversized responses, blocked addresses, and credentials in errors."""

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

pytestmark = pytest.mark.slow

__all__ = ["reconnect"]

LISTING = '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>'
SHARD = "shards/000000000-000000007.npz"


@dataclass
class Server:
    """A server with the same response to every request.

    Attributes:
        requests: the requested paths.
    """

    status: int
    headers: dict[str, str]
    url: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_server(status: int, **headers: str) -> Iterator[Server]:
    server = Server(status, headers)

    class Handler(BaseHTTPRequestHandler):
        def parse_request(self) -> bool:
            if super().parse_request():
                server.requests.append(self.path)
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
def environment(monkeypatch: pytest.MonkeyPatch, reconnect: Reconnect) -> Iterator[pytest.MonkeyPatch]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    reconnect()
    yield monkeypatch
    reconnect()


@pytest.mark.parametrize("status", [302, 307])
def test_redirects_are_not_followed(environment: pytest.MonkeyPatch, status: int) -> None:
    with running_server(200) as target, running_server(status, Location=f"{target.url}/latest/meta-data") as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        with pytest.raises(ModelNotFound):
            fetch("s3://bucket/model.safetensors")
        with pytest.raises(StorageFailed):
            backend_for("s3://bucket/digits").write("job.json", b"{}")
        assert server.requests
        assert target.requests == []


class LyingServer:
    """A server that claims one size and sends another; `sent` is in bytes.

    It answers listings with `listing`, and claims that every object to be created exists.
    """

    def __init__(self, claims: int, sends: int, listing: str) -> None:
        self.claims, self.sends, self.sent = claims, sends, 0
        self.listing = listing.encode()
        self.requests: list[str] = []

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        if "list-type=2" in request.path:
            self.list(request)
            return
        self.requests.append(request.command)
        request.send_response(200)
        request.send_header("Content-Length", str(self.claims if request.command == "HEAD" else self.sends))
        request.end_headers()
        block = bytes(1 << 20)
        with suppress(ConnectionError):
            while request.command == "GET" and self.sent < self.sends:
                self.sent += request.wfile.write(block[: self.sends - self.sent])

    def list(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append("LIST")
        _send(request, 200, self.listing)

    def refuse_create(self, request: BaseHTTPRequestHandler) -> None:
        _send(request, 412, b"<Error><Code>PreconditionFailed</Code></Error>")


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def lying_server(claims: int, sends: int, listing: str = "") -> Iterator[tuple[LyingServer, str]]:
    server = LyingServer(claims, sends, listing)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.respond(self)

        do_HEAD = do_GET  # noqa: N815 - http.server's own name

        def do_PUT(self) -> None:
            server.refuse_create(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()


def test_a_checkpoint_larger_than_claimed_is_rejected(environment: pytest.MonkeyPatch) -> None:
    with lying_server(claims=1000, sends=8 << 30) as (server, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="does not have the 1,000 bytes that its server reported"):
            fetch("s3://bucket/model.safetensors")
    assert server.sent < 64 << 20, "read more than the socket buffers hold"


READS: dict[str, Callable[[Store], object]] = {
    "job.json": lambda store: store.read_identity(),
    "manifest.json": lambda store: store.read_manifest(),
    "a shard": lambda store: store.scan(an_identity()),
    "a shard that is written again": lambda store: write_shards(store, an_identity(), [Shard(first=0, last=7)]),
    "a shard on record": lambda store: store.read_shard(ShardRecord(first=0, last=7, bytes=1000, sha256="0" * 64)),
}


@pytest.mark.parametrize("what", READS)
def test_reads_of_results_are_bounded(environment: pytest.MonkeyPatch, what: str) -> None:
    listing = f"{LISTING}<Contents><Key>digits/{SHARD}</Key><Size>1000</Size></Contents></ListBucketResult>"
    with lying_server(claims=1000, sends=8 << 30, listing=listing) as (server, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        with suppress(OutputConflict, StorageFailed):
            READS[what](Store.open("s3://bucket/digits"))
    assert "GET" in server.requests
    assert server.sent < 64 << 20, "read more than the socket buffers hold"


def test_an_oversized_shard_is_ignored(environment: pytest.MonkeyPatch) -> None:
    listing = f"{LISTING}<Contents><Key>digits/{SHARD}</Key><Size>1000</Size></Contents></ListBucketResult>"
    with lying_server(claims=1000, sends=64 << 20, listing=listing) as (_, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        records, [warning] = Store.open("s3://bucket/digits").scan(an_identity())
    assert records == []
    assert warning == (f"s3://bucket/digits/{SHARD} is ignored: it is larger than the maximum of 4,608 bytes")


def test_an_endless_listing_is_an_error(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(bucket, "MAX_LIST_PAGES", 5)
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>"
    with lying_server(claims=0, sends=0, listing=f"{LISTING}{more}</ListBucketResult>") as (server, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StorageFailed, match="s3://bucket/digits/shards could not be listed: the listing"):
            backend_for("s3://bucket/digits").sizes("shards")
    assert server.requests == ["LIST"] * 5


def test_a_checkpoint_claimed_huge_is_not_requested(environment: pytest.MonkeyPatch) -> None:
    with lying_server(claims=1 << 50, sends=1) as (server, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="a checkpoint may have"):
            fetch("s3://bucket/model.safetensors")
    assert set(server.requests) == {"HEAD"}


def test_a_checkpoint_shorter_than_claimed_is_rejected(environment: pytest.MonkeyPatch) -> None:
    with lying_server(claims=1000, sends=10) as (_, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ModelRejected, match="does not have the 1,000 bytes"):
            fetch("s3://bucket/model.safetensors")


def test_a_checkpoint_of_several_chunks_is_complete(environment: pytest.MonkeyPatch) -> None:
    with lying_server(claims=5_000_000, sends=5_000_000) as (_, url):
        environment.setenv("AWS_ENDPOINT_URL", url)
        assert fetch("s3://bucket/model.safetensors") == bytes(5_000_000)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]"])
def test_metadata_services_are_blocked(environment: pytest.MonkeyPatch, host: str) -> None:
    environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:80")
    errors: list[DdpmError] = []
    with pytest.raises(ModelNotFound) as model:
        fetch("s3://latest/meta-data/iam/security-credentials")
    errors.append(model.value)
    with pytest.raises(StorageFailed) as output:
        backend_for("s3://latest/meta-data").read("job.json", 2**20)
    errors.append(output.value)
    for error in errors:
        assert "is a link-local or cloud metadata address" in error.message
        assert "AWS_ENDPOINT_URL" in error.message + error.hint


@pytest.mark.parametrize(
    ("address", "blocked"),
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
def test_blocked_addresses(address: str, blocked: bool) -> None:
    assert is_blocked(address) is blocked


@pytest.mark.parametrize("server", ["http://127.0.0.1:9", "http://me:planted-password@127.0.0.1:9"])
def test_errors_contain_no_credentials(environment: pytest.MonkeyPatch, server: str) -> None:
    environment.setenv("AWS_ENDPOINT_URL", server)
    environment.setenv("AWS_SECRET_ACCESS_KEY", "planted-key")
    environment.setenv("AWS_SESSION_TOKEN", "planted-session")
    backend = backend_for("s3://bucket/digits")
    for do in (
        lambda: fetch("s3://bucket/m.pt"),
        lambda: backend.read("job.json", 2**20),
        lambda: backend.sizes("shards"),
    ):
        with pytest.raises(DdpmError) as error:
            do()
        assert "planted" not in error.value.message + error.value.hint
