"""What a stranger gets of a Ray cluster: a program that asks for everything at every port, run in a pod.

Its one argument is JSON: `ports` (address -> ports), `tokens` (name -> token, null for none), `secrets` (texts
that no answer may hold), `only` (what to ask for; none: everything). It prints what `told` returns.

What can be asked is read from Ray itself, so that a later Ray's new routes and services are asked for too.
Nothing is a refusal but what says so: "no such job" comes of a handler that has run, and silence of one that
may be running.
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

PATIENCE = 3.0
# For what has been asked once in vain: an answer that is late is one, and a machine may be busy.
MORE_PATIENCE = 15.0
ROUTE = re.compile(r"""(?:routes|RouteTable)\.(get|post|put|delete|patch)\(\s*f?["'](/[^"']*)""", re.IGNORECASE)
ADDED = re.compile(r"""add_(get|post|put|delete)\(\s*["'](/[^"']*)""")
# The agent's, which are not among Ray's own services.
OF_METRICS = (
    "/opencensus.proto.agent.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)
NOWHERE = "/nowhere"
OTHERS = ("/metrics", "/progress", "/grid.png", "/logs", "/logs/raylet.out", NOWHERE)
REFUSALS = (401, 403)
# UNIMPLEMENTED is said by who does not have such a service; a handler of Ray's does not say it.
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)

Reply = tuple[str, str, bytes]


def routes() -> list[tuple[str, str]]:
    """Every (method, path) that Ray's dashboard and agents have, and a few more."""
    package = Path(ray.__file__).parent
    sources = [*(package / "dashboard").rglob("*.py"), package / "_private/runtime_env/agent/main.py"]
    texts = [source.read_text() for source in sources]
    found = {(method.upper(), path) for text in texts for it in (ROUTE, ADDED) for method, path in it.findall(text)}
    assert len(found) > 40, "Ray's routes are written in another way than they were"
    return sorted(
        {(method, re.sub(r"{[^}]*}", "x", path)) for method, path in found}
        | {("GET", path) for path in (*OTHERS, static_file(package))}
    )


def static_file(package: Path) -> str:
    """The path of a file that the dashboard's page loads, as its server names it."""
    build = package / "dashboard/client/build"
    return f"/{next((build / 'static').rglob('*.js')).relative_to(build)}"


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


def over_http(address: str, port: int, token: str | None, only: set[str]) -> list[Reply] | None:
    """What a port answers to HTTP; None if it speaks something else."""

    def ask(method: str, path: str, patience: float = PATIENCE) -> tuple[str, bytes]:
        connection = http.client.HTTPConnection(address, port, timeout=patience)
        try:
            body = "{}" if method != "GET" else None
            connection.request(method, path, body, {"Authorization": f"Bearer {token}"} if token else {})
            answer = connection.getresponse()
            return str(answer.status), answer.read(1 << 22)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__, b""
        finally:
            connection.close()

    status, said = ask("GET", NOWHERE)
    if not status.isdecimal():
        return None
    if status == "200":  # it says the same to everything
        return [("GET *", status, said)]
    answers = []
    for method, path in routes():
        if only and f"{method} {path}" not in only:
            continue
        status, said = ask(method, path)
        if not status.isdecimal():
            status, said = ask(method, path, MORE_PATIENCE)
        if status not in map(str, REFUSALS):
            name = "/static/…" if path.startswith("/static/") else path
            answers.append((f"{method} {name}", status, said))
    return answers


def over_grpc(address: str, port: int, token: str | None, only: set[str]) -> list[Reply] | None:
    """What a port answers to gRPC; None if it speaks something else."""
    metadata = [("client_id", "stranger"), *([("authorization", f"Bearer {token}")] if token else [])]

    def ask(channel: grpc.Channel, call: str, patience: float = PATIENCE) -> tuple[grpc.StatusCode, bytes]:
        try:
            return grpc.StatusCode.OK, channel.unary_unary(call)(b"", metadata=metadata, timeout=patience)
        except grpc.RpcError as error:
            return error.code(), (error.details() or "").encode()

    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(PATIENCE)
        except grpc.FutureTimeoutError:
            return None
        answers = []
        for call in only or calls():
            if not call.startswith("/"):
                continue
            status, said = ask(channel, call)
            if status in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                status, said = ask(channel, call, MORE_PATIENCE)
            if status not in REFUSED:
                answers.append((call, status.name, said))
        return answers


def in_the_raw(address: str, port: int) -> Iterator[Reply]:
    """What a port says to who says nothing, or nonsense."""
    for said in (b"", bytes(range(256))):
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


def told(asked: dict[str, Any]) -> dict[str, list[tuple[object, ...]]]:
    """`answers`: (address, port, token, what was asked, status, whether it holds a secret) of all but refusals;
    `strange`: the (address, port) that spoke neither HTTP nor gRPC, so that nothing could be asked there.
    """
    only = set(asked["only"])
    doors = [(address, port) for address, ports in asked["ports"].items() for port in ports]

    def try_door(door: tuple[str, int]) -> tuple[bool, list[tuple[object, ...]]]:
        known, answers = False, []
        for name, token in asked["tokens"].items():
            spoken = [way(*door, token, only) for way in (over_http, over_grpc)]
            known = known or any(it is not None for it in spoken)
            got = [reply for replies in spoken for reply in replies or ()]
            got += () if only else in_the_raw(*door)
            answers += [(*door, name, what, status, holds_a_secret(said)) for what, status, said in got]
        return known, answers

    def holds_a_secret(said: bytes) -> bool:
        return any(secret.encode() in said for secret in asked["secrets"])

    with ThreadPoolExecutor(8) as pool:
        tried = list(pool.map(try_door, doors))
    return {
        "answers": [got for _, answers in tried for got in answers],
        "strange": [door for door, (known, _) in zip(doors, tried, strict=True) if not known],
    }


if __name__ == "__main__":
    print(json.dumps(told(json.loads(sys.argv[1]))))
