"""Ray's dashboard and its Jobs API, over HTTP with a token."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

POLL_SECONDS = 0.3
TERMINAL_STATES = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class RayApi:
    """The dashboard at ``http://127.0.0.1:port``; token None sends none."""

    port: int
    token: str | None

    def status_of(self, path: str) -> int:
        """Returns the HTTP status of a GET of `path`."""
        try:
            with urllib.request.urlopen(self._request(path), timeout=10) as response:  # noqa: S310 - http alone
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def text(self, path: str) -> str:
        """Returns the body of a GET of `path`."""
        with urllib.request.urlopen(self._request(path), timeout=30) as response:  # noqa: S310 - http alone
            return str(response.read().decode())

    def gpus(self) -> list[float]:
        """Returns the number of GPUs of each Ray node, sorted."""
        nodes = self._json("/api/v0/nodes")["data"]["result"]["result"]
        return sorted(node["resources_total"].get("GPU", 0.0) for node in nodes if node["state"] == "ALIVE")

    def run_job(self, entrypoint: str, env: dict[str, str], seconds: float) -> str:
        """Runs a job to its end and returns its log.

        Raises:
            AssertionError: if it did not succeed within `seconds`; contains its log.
        """
        deadline = time.monotonic() + seconds
        submitted = self._json("/api/jobs/", {"entrypoint": entrypoint, "runtime_env": {"env_vars": env}})
        job = f"/api/jobs/{submitted['submission_id']}"
        while (state := self._json(job)["status"]) not in TERMINAL_STATES and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        log = str(self._json(f"{job}/logs")["logs"])
        assert state == "SUCCEEDED", f"the job is {state} after at most {seconds:g} s; its log:\n{log}"
        return log

    def _json(self, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(self._request(path, body), timeout=30) as response:  # noqa: S310 - http alone
            document: dict[str, Any] = json.load(response)
        return document

    def _request(self, path: str, body: dict[str, object] | None = None) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
