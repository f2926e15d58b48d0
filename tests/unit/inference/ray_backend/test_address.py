"""Which Ray an address resolves to. The servers are plain sockets: resolving only asks whether something listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import grpc  # type: ignore[import-untyped]
import pytest

from ddpm_inference.errors import InvalidSpec, ResourcesUnavailable
from ddpm_inference.ray_backend import address
from ddpm_inference.ray_backend.address import RayTarget, configure_environment, resolve_address
from ddpm_inference.ray_backend.ray_private import MAX_SOCKET_PATH, START_TIMEOUTS, socket_path_length, temp_folders


class AnsweringRay(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers every call, or refuses every one for its token."""

    def __init__(self, *, requires_token: bool) -> None:
        self._requires_token = requires_token

    def service(self, _call: object) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._requires_token:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")
        return b""


def serving(handler: AnsweringRay) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def listening() -> Iterator[str]:
    """An address at which something answers as Ray does."""
    yield from serving(AnsweringRay(requires_token=False))


@pytest.fixture
def with_token() -> Iterator[str]:
    """An address at which something answers as a Ray that requires a token."""
    yield from serving(AnsweringRay(requires_token=True))


class NoRay(BaseRequestHandler):
    """Answers as a web server does that was sent something else."""

    def handle(self) -> None:
        self.request.recv(1024)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.fixture(params=["it is silent", "it is a web server"])
def no_ray(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address at which something listens that is no Ray."""
    if request.param == "it is silent":
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"127.0.0.1:{silent.getsockname()[1]}"
        return
    with ThreadingTCPServer(("127.0.0.1", 0), NoRay) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def unused() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def cluster_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused: str) -> Path:
    """A machine without any Ray; returns the file in which `ray start` would leave its address."""
    for name in ("TMPDIR", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(address, "PORT_FORWARD_ADDRESS", unused)
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    return file


def test_none_means_a_local_ray(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", listening)
    assert resolve_address("None").address is None
    assert resolve_address("none").address is None


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_explicit_address_is_used(listening: str, scheme: str) -> None:
    assert resolve_address(scheme + listening).address == scheme + listening


def test_auto_prefers_environment_then_machine_then_port_forward(
    monkeypatch: pytest.MonkeyPatch, cluster_file: Path, listening: str
) -> None:
    assert resolve_address("auto").address is None
    monkeypatch.setattr(address, "PORT_FORWARD_ADDRESS", listening)
    assert resolve_address("auto").address == f"ray://{listening}"
    cluster_file.write_text(listening)
    assert resolve_address("auto").address == listening
    monkeypatch.setenv("RAY_ADDRESS", f"ray://{listening}")
    assert resolve_address("auto").address == f"ray://{listening}"


def test_auto_starts_its_own_ray_where_no_ray_answers(
    monkeypatch: pytest.MonkeyPatch, cluster_file: Path, no_ray: str
) -> None:
    monkeypatch.setattr(address, "PORT_FORWARD_ADDRESS", no_ray)
    cluster_file.write_text(no_ray)
    assert resolve_address("auto") == RayTarget(None, f"what listens at {no_ray} does not answer as Ray")


def test_auto_uses_a_ray_that_requires_a_token(monkeypatch: pytest.MonkeyPatch, with_token: str) -> None:
    monkeypatch.setattr(address, "PORT_FORWARD_ADDRESS", with_token)
    assert resolve_address("auto").address == f"ray://{with_token}"


def test_a_local_ray_gets_more_than_half_a_minute_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    for name in START_TIMEOUTS:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")
    configure_environment(RayTarget(None, address.FROM_FLAG))
    seconds = {name: os.environ[name] for name in START_TIMEOUTS}
    assert seconds == {**START_TIMEOUTS, "RAY_raylet_start_wait_time_s": "300"}
    assert {"RAY_gcs_server_port_wait_time_s", "RAY_agent_register_timeout_ms"} <= set(seconds)


def test_auto_ignores_a_ray_that_has_ended(cluster_file: Path, unused: str) -> None:
    cluster_file.write_text(unused)
    assert resolve_address("auto").address is None


@pytest.mark.parametrize("invalid", ["head", "ray://", "ray://head", "http://head:8265", "head:port", "a:1/b", "::"])
def test_an_invalid_address_is_rejected(invalid: str) -> None:
    with pytest.raises(InvalidSpec, match="is not a Ray address"):
        resolve_address(invalid)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_rejected(unused: str, scheme: str) -> None:
    with pytest.raises(ResourcesUnavailable, match=f"no Ray answers at {scheme}{unused}"):
        resolve_address(scheme + unused)


UNKNOWN_HOST = "ray://no-such-host.invalid:10001"
UNREACHABLE = RayTarget(UNKNOWN_HOST, address.FROM_FLAG)


def test_a_host_that_does_not_resolve_is_rejected() -> None:
    with pytest.raises(ResourcesUnavailable, match="no Ray answers"):
        resolve_address(UNKNOWN_HOST)


def test_an_exported_token_is_used_if_the_cluster_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setenv("RAY_AUTH_MODE", "to be restored")
    monkeypatch.delenv("RAY_AUTH_MODE")
    configure_environment(UNREACHABLE)
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_the_auth_mode_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    configure_environment(UNREACHABLE)
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_the_token_file_is_not_sent_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("this machine's")
    configure_environment(UNREACHABLE)
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.parametrize("value", ["auto", "AUTO", " auto "])
def test_ray_address_auto_searches_as_if_it_were_unset(
    monkeypatch: pytest.MonkeyPatch, cluster_file: Path, listening: str, value: str
) -> None:
    cluster_file.write_text(listening)
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert resolve_address("auto") == RayTarget(listening, address.FROM_THIS_MACHINE)


@pytest.mark.parametrize("value", ["local", "None"])
def test_ray_address_local_starts_a_local_ray(
    monkeypatch: pytest.MonkeyPatch, cluster_file: Path, listening: str, value: str
) -> None:
    cluster_file.write_text(listening)
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert resolve_address("auto") == RayTarget(None, address.FROM_VARIABLE)


def test_an_invalid_address_of_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(InvalidSpec, match=r"RAY_ADDRESS http://head:8265 is not a Ray address: .*Jobs API") as rejected:
        resolve_address("auto")
    assert "--ray_address" not in rejected.value.message
    assert "unset RAY_ADDRESS" in rejected.value.hint


def test_an_unreachable_address_of_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, unused: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", unused)
    with pytest.raises(ResourcesUnavailable, match="from RAY_ADDRESS"):
        resolve_address("auto")


def test_a_ray_is_found_below_tmpdir_and_below_the_systems_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "ray" / "ray_current_cluster").write_text(listening)
    assert resolve_address("auto").address == listening
    assert temp_folders() == [tmp_path, Path("/tmp")]


def test_a_local_ray_gets_a_short_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "to be restored")
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", f"/{'x' * 100}")
    configure_environment(UNREACHABLE)
    assert "RAY_TMPDIR" not in os.environ
    configure_environment(RayTarget(None, address.FROM_FLAG))
    assert os.environ["RAY_TMPDIR"] == "/tmp"


def test_the_longest_folder_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    longest = Path("/", "x" * (MAX_SOCKET_PATH - socket_path_length(Path("/x")) + 1))
    monkeypatch.setenv("TMPDIR", str(longest))
    configure_environment(RayTarget(None, address.FROM_FLAG))
    assert "RAY_TMPDIR" not in os.environ


def test_a_ray_tmpdir_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/{'x' * 100}")
    with pytest.raises(InvalidSpec, match=r"RAY_TMPDIR /x+ is too long by \d+ bytes for the sockets"):
        configure_environment(RayTarget(None, address.FROM_FLAG))


def test_the_home_folder_in_the_path_of_a_token_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "~/token")
    configure_environment(RayTarget(None, address.FROM_FLAG))
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
