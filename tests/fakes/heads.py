"""Heads that answer what a test wants them to, over HTTP on this machine: both doors of a head pod."""

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

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar("Result")


@dataclass
class Door:
    """One HTTP server, and what it was asked.

    Attributes:
        asked: method, path and token of every request.
    """

    answer: Answer
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append((request.method, request.path, token))
        return await self.answer(request)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Serves for the time of the block; yields the address."""
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


def nobody() -> Answer:
    """A door at which nobody answers anything of use."""
    return says(404, "404: Not Found")


def says(status: int, text: str | bytes, headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(status=status, body=body, headers=headers)

    return answer


def ask_head(ask: Callable[[HeadClient], Awaitable[Result]], dashboard: Door, driver: Door | None = None) -> Result:
    """What a question to a head with these doors comes to."""

    async def run() -> Result:
        async with (
            dashboard.open() as first,
            (driver or Door(nobody())).open() as second,
            new_session() as session,
        ):
            return await ask(HeadClient(session, first, second, TOKENS))

    return asyncio.run(run())
