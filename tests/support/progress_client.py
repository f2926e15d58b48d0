"""A client of the progress server of a run."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.support.rays import free_port

TOKEN = "0123456789abcdef" * 2


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document


@dataclass(frozen=True)
class ProgressClient:
    """Sends requests to a port of this machine."""

    port: int

    @classmethod
    def at_a_free_port(cls) -> ProgressClient:
        return cls(free_port())

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make a command start its server at this port."""
        return {"DDPM_PROGRESS_PORT": str(self.port), "DDPM_PROGRESS_TOKEN": TOKEN}

    def request(
        self, path: str = "/progress", method: str = "GET", authorization: str | None = f"Bearer {TOKEN}"
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {} if authorization is None else {"Authorization": authorization}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Response(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def progress(self) -> dict[str, Any]:
        """Returns the progress document, or an empty one if no server listens."""
        try:
            return self.request().document
        except ConnectionError:
            return {}
