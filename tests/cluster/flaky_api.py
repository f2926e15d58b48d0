"""A proxy before the API server: of requests and of watches every fifth goes wrong, each way in turn."""

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

Way = Literal[
    "429",
    "500",
    "cut off",
    "carried out, and the answer lost",
    "hangs",
    "a watch that has expired",
    "a watch that is refused",
]

EVERY = 5
WAYS: tuple[Way, ...] = ("429", "500", "cut off", "carried out, and the answer lost", "hangs")
WATCH_WAYS: tuple[Way, ...] = ("a watch that has expired", "a watch that is refused")
# Seconds after which a watch is cut off.
WATCHED_FOR = 5.0
# Longer than anybody waits who should not wait for ever.
HANGS_FOR = 60.0
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass
class FlakyApi:
    """One API server as it is seen through the proxy.

    Attributes:
        asked: requests, without watches.
        watched: watches.
        wrong: how many went wrong, and how.
        url: of the proxy.
    """

    server: str
    trust: ssl.SSLContext
    asked: int = 0
    watched: int = 0
    wrong: Counter[Way] = field(default_factory=Counter)
    url: str = ""
    _ways: Iterator[Way] = field(default_factory=lambda: cycle(WAYS))
    _watch_ways: Iterator[Way] = field(default_factory=lambda: cycle(WATCH_WAYS))

    async def serve(self, ready: threading.Event, ends: asyncio.Event) -> None:
        """Serves on a port of its own until it is to end."""
        connector = aiohttp.TCPConnector(ssl=self.trust, limit=0)
        forever = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=forever, auto_decompress=False) as session:
            runner = web.ServerRunner(web.Server(lambda it: self._answer(it, session)), shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                ready.set()
                await ends.wait()
            finally:
                await runner.cleanup()

    async def _answer(self, request: web.BaseRequest, session: aiohttp.ClientSession) -> web.StreamResponse:
        watch = "watch" in request.query
        self.watched += watch
        self.asked += not watch
        way = None
        if self.watched and (self.watched if watch else self.asked) % EVERY == 0:
            way = next(self._watch_ways if watch else self._ways)
            self.wrong[way] += 1
        match way:
            case "429" | "500":
                return _refusal(int(way))
            case "cut off":
                return _cut(request)
            case "hangs":
                # Until the client has waited enough; the server of this proxy ends what is left then.
                await asyncio.sleep(HANGS_FOR)
                return _cut(request)
            case "a watch that has expired":
                event = {"type": "ERROR", "object": _status(410, "Expired")}
                return web.json_response(event, dumps=lambda it: f"{json.dumps(it)}\n")
            case "a watch that is refused":
                return _refusal(500)
        passed = {it: value for it, value in request.headers.items() if it.lower() not in _OF_ONE_CONNECTION}
        body = await request.read()
        async with session.request(
            request.method, f"{self.server}{request.raw_path}", headers=passed, data=body or None
        ) as answer:
            if watch:
                return await _stream(request, answer)
            text = await answer.read()
        if way:
            return _cut(request)
        return web.Response(status=answer.status, body=text, headers=_headers(answer))


async def _stream(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    await response.prepare(request)
    try:
        async with asyncio.timeout(WATCHED_FOR):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
    except (TimeoutError, ConnectionError):
        return _cut(request)
    return response


def _headers(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {it: value for it, value in answer.headers.items() if it.lower() not in _OF_ONE_CONNECTION}


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


def _refusal(status: int) -> web.Response:
    headers = {"Retry-After": "1"} if status == web.HTTPTooManyRequests.status_code else {}
    return web.json_response(_status(status, "InternalError"), status=status, headers=headers)


def _status(code: int, reason: str) -> dict[str, str | int]:
    message = "the proxy has answered that this goes wrong"
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
    """The proxy, for the time of the block.

    Args:
        server: how the API server is reached; its credentials are not used, a request brings its own.
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
        runner.close()  # what still hangs with it
