"""HTTP servers on localhost that stand in for the two ports of a head pod: Ray's dashboard and the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.head_client import HeadClient, new_session

TOKENS = Tokens(ray="ray's", progress="driver's", suffix="suffix")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar("Result")


@dataclass
class FakeServer:
    """An HTTP server that records its requests.

    Attributes:
        handler: responds to every request.
        requests: method, path and bearer token of every request.
    """

    handler: Handler
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append((request.method, request.path, token))
        return await self.handler(request)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Serves during the block; yields the base URL."""
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def responds(status: int, text: str | bytes, headers: dict[str, str] | None = None) -> Handler:
    """Returns a handler that gives every request the same response."""

    async def handler(_: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(status=status, body=body, headers=headers)

    return handler


def not_found() -> Handler:
    """Returns a handler that responds 404 to every request."""
    return responds(404, "404: Not Found")


def call_head(
    call: Callable[[HeadClient], Awaitable[Result]], dashboard: FakeServer, driver: FakeServer | None = None
) -> Result:
    """Returns the result of a call of a HeadClient that is connected to these servers."""

    async def run() -> Result:
        async with (
            dashboard.open() as dashboard_url,
            (driver or FakeServer(not_found())).open() as driver_url,
            new_session() as session,
        ):
            return await call(HeadClient(session, dashboard_url, driver_url, TOKENS))

    return asyncio.run(run())
