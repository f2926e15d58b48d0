"""A proxy in front of the API server that fails every fifth request and watch, each time in another way."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal

import aiohttp
from aiohttp import web
from kubernetes.client import Configuration

Failure = Literal[
    "429",
    "500",
    "cut off",
    "executed, but the response lost",
    "no response",
    "watch expired",
    "watch refused",
]

EVERY = 5
REQUEST_FAILURES: tuple[Failure, ...] = ("429", "500", "cut off", "executed, but the response lost", "no response")
WATCH_FAILURES: tuple[Failure, ...] = ("watch expired", "watch refused")
# Seconds after which a watch is closed.
WATCH_SECONDS = 5.0
# Longer than every client's timeout.
HANG_SECONDS = 60.0
_HOP_BY_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class FlakyApi:
    """The proxy of one API server.

    Attributes:
        requests: number of requests, without watches.
        watches: number of watches.
        failures: number of injected failures by kind.
        url: the address of the proxy.
    """

    server: str
    trust: ssl.SSLContext
    requests: int = 0
    watches: int = 0
    failures: Counter[Failure] = field(default_factory=Counter)
    url: str = ""
    _request_failures: Iterator[Failure] = field(default_factory=lambda: cycle(REQUEST_FAILURES))
    _watch_failures: Iterator[Failure] = field(default_factory=lambda: cycle(WATCH_FAILURES))

    async def serve(self, ready: threading.Event, ends: asyncio.Event) -> None:
        """Serves on a free port until `ends` is set."""
        connector = aiohttp.TCPConnector(ssl=self.trust, limit=0)
        forever = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=forever, auto_decompress=False) as session:
            runner = web.ServerRunner(web.Server(lambda it: self._respond(it, session)), shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                ready.set()
                await ends.wait()
            finally:
                await runner.cleanup()

    async def _respond(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        watch = "watch" in request.query
        self.watches += watch
        self.requests += not watch
        failure = None
        if self.watches and (self.watches if watch else self.requests) % EVERY == 0:
            failure = next(self._watch_failures if watch else self._request_failures)
            self.failures[failure] += 1
        match failure:
            case "429" | "500":
                return _refusal(int(failure))
            case "cut off":
                return _cut(request)
            case "no response":
                # The client gives up first; at its end the proxy closes the remaining connections.
                await asyncio.sleep(HANG_SECONDS)
                return _cut(request)
            case "watch expired":
                event = {"type": "ERROR", "object": _status(410, "Expired")}
                return web.json_response(event, dumps=lambda it: f"{json.dumps(it)}\n")
            case "watch refused":
                return _refusal(500)
        passed = {it: value for it, value in request.headers.items() if it.lower() not in _HOP_BY_HOP_HEADERS}
        body = await request.read()
        async with session.request(
            request.method, f"{self.server}{request.raw_path}", headers=passed, data=body or None
        ) as response:
            if watch:
                return await _stream(request, response)
            text = await response.read()
        if failure:
            return _cut(request)
        return web.Response(status=response.status, body=text, headers=_headers(response))


async def _stream(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    await response.prepare(request)
    try:
        async with asyncio.timeout(WATCH_SECONDS):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
    except (TimeoutError, ConnectionError):
        return _cut(request)
    return response


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {it: value for it, value in answer.headers.items() if it.lower() not in _HOP_BY_HOP_HEADERS}


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


def _refusal(status: int) -> web.Response:
    headers = {"Retry-After": "1"} if status == web.HTTPTooManyRequests.status_code else {}
    return web.json_response(_status(status, "InternalError"), status=status, headers=headers)


def _status(code: int, reason: str) -> dict[str, str | int]:
    message = "a failure injected by the proxy"
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


@contextmanager
def flaky_api(server: Configuration) -> Iterator[FlakyApi]:
    """Runs the proxy during the block.

    Args:
        server: the address and CA of the API server. Requests bring their own credentials.
    """
    flaky = FlakyApi(server.host, ssl.create_default_context(cafile=server.ssl_ca_cert))
    ready, runner, ends = threading.Event(), asyncio.Runner(), asyncio.Event()
    loop = runner.get_loop()
    thread = threading.Thread(target=runner.run, args=(flaky.serve(ready, ends),))
    thread.start()
    try:
        assert ready.wait(10), "the proxy does not listen"
        yield flaky
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join()
        runner.close()  # also ends requests that still hang
