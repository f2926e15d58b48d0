"""A board that is served on the loopback, and a client of it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from ddpm_inference.beacon.board import Board
from ddpm_inference.beacon.server import served
from ddpm_inference.beacon.settings import Settings

TOKEN = "0123456789abcdef" * 2


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.body)
        return document


@dataclass(frozen=True)
class Client:
    port: int

    def ask(
        self, path: str = "/progress", method: str = "GET", authorization: str | None = f"Bearer {TOKEN}"
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {} if authorization is None else {"Authorization": authorization}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def client(board: Board) -> Iterator[Client]:
    with served(board, Settings(0, TOKEN)) as port:
        yield Client(port)
