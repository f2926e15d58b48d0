"""A client of what a run tells over HTTP while it goes on."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.support.rays import free_port

TOKEN = "0123456789abcdef" * 2


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


@dataclass(frozen=True)
class Client:
    """Asks at a port of this machine.

    Attributes:
        environment: what a command must have to be asked there.
    """

    port: int

    @classmethod
    def at_a_free_port(cls) -> Client:
        return cls(free_port())

    @property
    def environment(self) -> dict[str, str]:
        return {"DDPM_PROGRESS_PORT": str(self.port), "DDPM_PROGRESS_TOKEN": TOKEN}

    def ask(self, path: str = "/progress", method: str = "GET", authorization: str | None = f"Bearer {TOKEN}") -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {} if authorization is None else {"Authorization": authorization}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def progress(self) -> dict[str, Any]:
        """The document; an empty one if nobody is there."""
        try:
            return self.ask().document
        except ConnectionError:
            return {}
