"""Fixtures of a real S3 server: versitygw over a folder, on the loopback interface, with its own keys."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 30.0


@dataclass(frozen=True)
class S3Server:
    """A running server. Its buckets are the folders below `folder`; a client needs the variables in `environment`."""

    endpoint: str
    environment: dict[str, str]
    folder: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def versitygw() -> Path:
    """The server's executable, built on first use (about a minute, needs Go)."""
    built = subprocess.run([ROOT / "hack/node/build", "s3"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.strip()) / "versitygw"


@contextmanager
def _running(program: Path, folder: Path, *options: str) -> Iterator[S3Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    access, secret = secrets.token_hex(8), secrets.token_hex(16)
    process = subprocess.Popen(
        [program, "--quiet", "--port", address, "--health", "/health", *options, "posix", folder],
        env={**os.environ, "ROOT_ACCESS_KEY": access, "ROOT_SECRET_KEY": secret},
        stdout=subprocess.DEVNULL,
    )
    environment = {
        "AWS_ENDPOINT_URL": f"http://{address}",
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
    }
    try:
        _wait_until_ready(f"http://{address}/health", process)
        yield S3Server(f"http://{address}", environment, folder, process)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a URL of this file
                return
        except (urllib.error.URLError, ConnectionError) as error:
            if process.poll() is not None:
                raise RuntimeError(f"the S3 server exited with code {process.returncode}") from error
            if time.monotonic() > deadline:
                raise TimeoutError(f"the S3 server did not answer within {START_TIMEOUT} s") from error
            time.sleep(0.02)


StartS3 = Callable[..., AbstractContextManager[S3Server]]


@pytest.fixture(scope="session")
def start_s3(versitygw: Path) -> StartS3:
    """Starts another server over a folder, for tests that kill it or pass options."""
    return lambda folder, *options: _running(versitygw, folder, *options)


@pytest.fixture(scope="session")
def s3_server(start_s3: StartS3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server that most tests share."""
    with start_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


Reconnect = Callable[[], None]


@pytest.fixture
def reconnect() -> Iterator[Reconnect]:
    """Makes the next connection of this process read the environment again; the end of the test does so as well."""
    yield s3fs.S3FileSystem.clear_instance_cache
    s3fs.S3FileSystem.clear_instance_cache()


UseS3 = Callable[[S3Server], None]


@pytest.fixture
def use_s3(monkeypatch: pytest.MonkeyPatch, reconnect: Reconnect) -> UseS3:
    """Points the environment of this process and its children to a server of the test."""

    def use(server: S3Server) -> None:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        reconnect()

    return use


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a new, empty bucket on the shared server, to which the environment points."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(4)}"
    s3fs.S3FileSystem().mkdir(name)
    return name
