"""A fake API server over HTTP that plays back recorded states of one sampling.

A list returns the first state, a watch the remaining ones; afterwards every request returns the last state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

Document = dict[str, Any]

_PATH = "/apis/ddpm-ray.io/v1alpha1/namespaces/research/ddpmsamplings"


def sampling(version: int, phase: str | None = None, done: int = 0, **status: object) -> Document:
    """Returns one state of the sampling `digits` of 100 samples, generation 1.

    Args:
        version: the resourceVersion.
        status: more fields of the status, or other values for them.
    """
    true_condition = {"Running": "Running", "Succeeded": "Complete", "Failed": "Failed"}.get(phase or "")
    condition = {
        "type": true_condition,
        "status": "True",
        "reason": "It",
        "message": f"It is {phase}.",
        "lastTransitionTime": "2026-11-23T16:00:00Z",
    }
    full_status = {
        "phase": phase,
        "observedGeneration": 1,
        "conditions": [condition] if true_condition else [],
        "progress": {"done": done, "total": 100, "percent": done},
        **status,
    }
    return {
        "apiVersion": "ddpm-ray.io/v1alpha1",
        "kind": "DDPMSampling",
        "metadata": {
            "name": "digits",
            "namespace": "research",
            "uid": "u",
            "generation": 1,
            "resourceVersion": str(version),
            "creationTimestamp": "2026-11-23T16:00:00Z",
        },
        "spec": {"model": {"uri": "builtin://mnist"}, "samples": 100},
        **({"status": full_status} if phase else {}),
    }


@dataclass
class RecordedApi:
    """The recorded states and the patches received.

    Attributes:
        error: (HTTP status, message) that every read request gets instead of a state.
        field_managers: field of the spec -> the manager that owns it. An apply that changes it gets a conflict.
        patches: the bodies of the merge patches received. Each changes the spec of the last state.
    """

    states: list[Document]
    error: tuple[int, str] | None = None
    field_managers: dict[str, str] = field(default_factory=dict)
    patches: list[Document] = field(default_factory=list, init=False)
    _current: int = field(default=0, init=False)

    @contextmanager
    def kubeconfig(self, folder: Path) -> Iterator[Path]:
        """Serves the states for the duration of the block; yields a kubeconfig for this server."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, lines = api.get(self.path)
                self.send_response(status)
                self.end_headers()
                for line in lines:
                    self.wfile.write(json.dumps(line).encode() + b"\n")

            def do_PATCH(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, document = api.patch(json.loads(body), self.headers["Content-Type"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_: object) -> None:
                """Keeps the access log out of the tests' output."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield write_kubeconfig(folder, server.server_port)
            finally:
                server.shutdown()
                thread.join()

    def patch(self, body: Document, content_type: str) -> tuple[int, Document]:
        """Returns (HTTP status, document) of a merge patch or a server-side apply."""
        last = self.states[-1]
        if content_type == "application/merge-patch+json":
            self.patches.append(body)
        else:
            assert content_type == "application/apply-patch+yaml"
            wanted, present = body["spec"], last["spec"]
            conflicts = [it for it in self.field_managers if it in wanted and wanted[it] != present.get(it)]
            if conflicts:
                return 409, conflict_status({it: self.field_managers[it] for it in conflicts})
        self.states[-1] = last | {"spec": last["spec"] | body["spec"]}
        return 200, self.states[-1]

    def get(self, path: str) -> tuple[int, list[Document]]:
        """Returns (HTTP status, lines) of a get, a list or a watch."""
        if self.error:
            code, message = self.error
            return code, [{"kind": "Status", "message": message}]
        assert path.startswith(_PATH), path
        if path.startswith(f"{_PATH}/"):
            return 200, [self.states[self._current]]
        if "watch=true" in path:
            remaining, self._current = self.states[self._current + 1 :], len(self.states) - 1
            return 200, [{"type": "MODIFIED", "object": state} for state in remaining]
        current = self.states[self._current]
        version = {"resourceVersion": current["metadata"]["resourceVersion"]}
        return 200, [{"kind": "DDPMSamplingList", "metadata": version, "items": [current]}]


def conflict_status(managers: dict[str, str]) -> Document:
    """Returns the Status of an apply that conflicts with the managers of these fields."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using ddpm-ray.io/v1alpha1',
            "field": f".spec.{name}",
        }
        for name, manager in managers.items()
    ]
    message = f"Apply failed with {len(managers)} conflicts"
    return {"kind": "Status", "reason": "Conflict", "message": message, "details": {"causes": causes}}


def write_kubeconfig(folder: Path, port: int) -> Path:
    """Writes a kubeconfig for a server on this port of 127.0.0.1, with the namespace `research`."""
    path = folder / "kubeconfig"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "research"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path
