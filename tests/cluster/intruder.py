"""What a stranger gets of a Ray cluster: a program that asks for everything at every port, run in a pod.

Its one argument is JSON: `ports` (address -> ports), `tokens` (name -> token, null for none), `secrets` (texts
that no answer may hold), `only` (what to ask for; none: everything). It prints a JSON list of what was answered
with more than a refusal: [address, port, token, what was asked, status, whether it holds a secret].

What can be asked is read from Ray itself, so that a later Ray's new routes and services are asked for too.
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

import grpc  # type: ignore[import-untyped]
import ray

PATIENCE = 3.0
ROUTE = re.compile(r"""(?:routes|RouteTable)\.(get|post|put|delete|patch)\(\s*f?["'](/[^"']*)""", re.IGNORECASE)
ADDED = re.compile(r"""add_(get|post|put|delete)\(\s*["'](/[^"']*)""")
# The agent's, which are not among Ray's own services.
OF_METRICS = (
    "/opencensus.proto.agent.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)
OTHERS = ("/metrics", "/progress", "/grid.png", "/static/js/main.js", "/logs", "/nowhere")
REFUSALS = (401, 403, 404, 405)
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)
NO_GRPC = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Reply = tuple[str, str, bytes]


def routes() -> list[tuple[str, str]]:
    """Every (method, path) that Ray's dashboard and agents have, and a few more."""
    package = Path(ray.__file__).parent
    sources = [*(package / "dashboard").rglob("*.py"), package / "_private/runtime_env/agent/main.py"]
    texts = [source.read_text() for source in sources]
    found = {
        (method.upper(), path) for text in texts for it in (ROUTE, ADDED) for method, path in it.findall(text)
    }
    assert len(found) > 40, "Ray's routes are written in another way than they were"
    return sorted(
        {(method, re.sub(r"{[^}]*}", "x", path)) for method, path in found} | {("GET", it) for it in OTHERS}
    )


def calls() -> list[str]:
    """Every call of every gRPC service of Ray."""
    generated = importlib.import_module("ray.core.generated").__path__
    found = []
    for module in pkgutil.iter_modules(generated):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in file.services_by_name.values():
                found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    assert len(found) > 100, "Ray's services are kept in another place than they were"
    return sorted([*found, *OF_METRICS])


def over_http(address: str, port: int, token: str | None, only: set[str]) -> Iterator[Reply]:
    """What a port answers to HTTP; nothing if it speaks something else."""

    def ask(method: str, path: str) -> tuple[int, bytes] | None:
        connection = http.client.HTTPConnection(address, port, timeout=PATIENCE)
        try:
            body = "{}" if method != "GET" else None
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 22)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    nowhere = ask("GET", "/nowhere")
    if nowhere and nowhere[0] not in REFUSALS:
        yield "GET *", str(nowhere[0]), nowhere[1]
    elif nowhere:
        for method, path in routes():
            if only and f"{method} {path}" not in only:
                continue
            answer = ask(method, path)
            if answer and answer[0] not in REFUSALS:
                yield f"{method} {path}", str(answer[0]), answer[1]


def over_grpc(address: str, port: int, token: str | None, only: set[str]) -> Iterator[Reply]:
    """What a port answers to gRPC; nothing if it speaks something else."""
    metadata = [("client_id", "stranger"), *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        for call in only or calls():
            if not call.startswith("/"):
                continue
            try:
                body = channel.unary_unary(call)(b"", metadata=metadata, timeout=PATIENCE)
            except grpc.RpcError as error:
                if error.code() in NO_GRPC:
                    return
                if error.code() not in REFUSED:
                    yield call, error.code().name, error.details().encode()
            else:
                yield call, "OK", body


def in_the_raw(address: str, port: int, token: str | None, only: set[str]) -> Iterator[Reply]:
    """What a port says to who says nothing, or nonsense."""
    for said in () if only else (b"", bytes(range(256))):
        try:
            with socket.create_connection((address, port), PATIENCE) as connection:
                connection.settimeout(0.3)
                connection.sendall(said)
                heard = connection.recv(1 << 16)
        except OSError:
            continue
        # HTTP says that this is nonsense, in a line or on a page; gRPC sends its settings to everybody.
        if heard and b"400" not in heard and not heard.startswith(b"\0\0"):
            yield "raw", "heard", heard


def main() -> None:
    asked = json.loads(sys.argv[1])
    doors = [(address, port) for address, ports in asked["ports"].items() for port in ports]

    def try_door(door: tuple[str, int]) -> list[tuple[object, ...]]:
        return [
            (*door, name, what, status, any(secret.encode() in body for secret in asked["secrets"]))
            for name, token in asked["tokens"].items()
            for way in (over_http, over_grpc, in_the_raw)
            for what, status, body in way(*door, token, set(asked["only"]))
        ]

    with ThreadPoolExecutor(8) as pool:
        print(json.dumps([got for of_door in pool.map(try_door, doors) for got in of_door]))


if __name__ == "__main__":
    main()
