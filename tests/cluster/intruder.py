"""Probes a Ray cluster from a pod, as an attacker would: sends every known request to every port.

The argument is JSON: `ports` (address -> ports), `tokens` (name -> token, null for none), `secrets` (texts that no
response may contain), `only` (requests to send; empty: all). It prints the result of `probe`.

Routes and services are read from the installed Ray, so that those of later versions are probed too. Only explicit
refusals count as such: "no such job" comes from a handler that has run, and no response may mean that one still runs.
"""

from __future__ import annotations

import http.client
import importlib
import json
import pkgutil
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray

TIMEOUT = 3.0
# For the second try: a late response counts, and the machine may be busy.
RETRY_TIMEOUT = 15.0
ROUTE = re.compile(r"""(?:routes|RouteTable)\.(get|post|put|delete|patch)\(\s*f?["'](/[^"']*)""", re.IGNORECASE)
ADDED = re.compile(r"""add_(get|post|put|delete)\(\s*["'](/[^"']*)""")
# Services of the agent, whose protocol is not in Ray's package.
METRICS_CALLS = (
    "/opencensus.proto.agent.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)
UNKNOWN_PATH = "/no-such-path"
MORE_PATHS = ("/metrics", "/progress", "/grid.png", "/logs", "/logs/raylet.out", UNKNOWN_PATH)
REFUSALS = (401, 403)
# UNIMPLEMENTED means that the server lacks the service; handlers of Ray do not return it.
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)

Reply = tuple[str, str, bytes]


def routes() -> list[tuple[str, str]]:
    """Returns every (method, path) of Ray's dashboard and agents, and a few more."""
    package = Path(ray.__file__).parent
    sources = [*(package / "dashboard").rglob("*.py"), package / "_private/runtime_env/agent/main.py"]
    texts = [source.read_text() for source in sources]
    found = {(method.upper(), path) for text in texts for it in (ROUTE, ADDED) for method, path in it.findall(text)}
    assert len(found) > 40, "found too few routes: this Ray declares them in another way"
    return sorted(
        {(method, re.sub(r"{[^}]*}", "x", path)) for method, path in found}
        | {("GET", path) for path in (*MORE_PATHS, static_file(package))}
    )


def static_file(package: Path) -> str:
    """Returns the path of a static file of the dashboard's page."""
    build = package / "dashboard/client/build"
    return f"/{next((build / 'static').rglob('*.js')).relative_to(build)}"


def calls() -> list[str]:
    """Returns every method of every gRPC service of Ray."""
    generated = importlib.import_module("ray.core.generated").__path__
    found = []
    for module in pkgutil.iter_modules(generated):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    assert len(found) > 100, "found too few services: this Ray declares them in another place"
    return sorted([*found, *METRICS_CALLS])


def over_http(address: str, port: int, token: str | None, only: set[str]) -> list[Reply] | None:
    """Returns the responses of a port to HTTP requests, without refusals; None if it does not speak HTTP."""

    def ask(method: str, path: str, timeout: float = TIMEOUT) -> tuple[str, bytes]:
        connection = http.client.HTTPConnection(address, port, timeout=timeout)
        try:
            body = "{}" if method != "GET" else None
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return str(answer.status), answer.read(1 << 22)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, b""
        finally:
            connection.close()

    status, body = ask("GET", UNKNOWN_PATH)
    if not status.isdecimal():
        return None
    if status == "200":  # the same response to every path
        return [("GET *", status, body)]
    answers = []
    for method, path in routes():
        if only and f"{method} {path}" not in only:
            continue
        status, body = ask(method, path)
        if not status.isdecimal():
            status, body = ask(method, path, RETRY_TIMEOUT)
        if status not in map(str, REFUSALS):
            name = "/static/…" if path.startswith("/static/") else path
            answers.append((f"{method} {name}", status, body))
    return answers


def over_grpc(address: str, port: int, token: str | None, only: set[str]) -> list[Reply] | None:
    """Returns the responses of a port to gRPC calls, without refusals; None if it does not speak gRPC."""
    metadata = [("client_id", "stranger"), *([("authorization", f"Bearer {token}")] if token else [])]

    def ask(channel: grpc.Channel, call: str, timeout: float = TIMEOUT) -> tuple[grpc.StatusCode, bytes]:
        try:
            return grpc.StatusCode.OK, channel.unary_unary(call)(b"", metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            return error.code(), (error.details() or "").encode()

    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(TIMEOUT)
        except grpc.FutureTimeoutError:
            return None
        answers = []
        for call in only or calls():
            if not call.startswith("/"):
                continue
            status, body = ask(channel, call)
            if status in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                status, body = ask(channel, call, RETRY_TIMEOUT)
            if status not in REFUSED:
                answers.append((call, status.name, body))
        return answers


def over_tcp(address: str, port: int) -> Iterator[Reply]:
    """Yields what a port sends after no input, or after random bytes."""
    for data in (b"", bytes(range(256))):
        try:
            with socket.create_connection((address, port), TIMEOUT) as connection:
                connection.settimeout(0.3)
                connection.sendall(data)
                received = connection.recv(1 << 16)
        except OSError:
            continue
        # Expected: HTTP responds with 400, and gRPC sends its settings to every client.
        if received and b"400" not in received and not received.startswith(b"\0\0"):
            yield "raw", "received", received


def probe(request: dict[str, Any]) -> dict[str, list[tuple[object, ...]]]:
    """Sends all requests.

    Returns:
        `answers`: (address, port, token, request, status, whether it contains a secret) of every response but refusals;
        `unknown`: the (address, port) that speak neither HTTP nor gRPC, so that nothing could be probed.
    """
    only = set(request["only"])
    endpoints = [(address, port) for address, ports in request["ports"].items() for port in ports]

    def probe_port(endpoint: tuple[str, int]) -> tuple[bool, list[tuple[object, ...]]]:
        known, answers = False, []
        for name, token in request["tokens"].items():
            replies_by_protocol = [protocol(*endpoint, token, only) for protocol in (over_http, over_grpc)]
            known = known or any(it is not None for it in replies_by_protocol)
            got = [reply for replies in replies_by_protocol for reply in replies or ()]
            got += () if only else over_tcp(*endpoint)
            answers += [(*endpoint, name, what, status, holds_a_secret(body)) for what, status, body in got]
        return known, answers

    def holds_a_secret(body: bytes) -> bool:
        return any(secret.encode() in body for secret in request["secrets"])

    with ThreadPoolExecutor(8) as pool:
        tried = list(pool.map(probe_port, endpoints))
    return {
        "answers": [got for _, answers in tried for got in answers],
        "unknown": [endpoint for endpoint, (known, _) in zip(endpoints, tried, strict=True) if not known],
    }


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(sys.argv[1]))))
