"""An API server that tells a recorded story of one sampling over HTTP: its first state when asked, the rest when
watched, its last one ever after."""

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
    """One state of a sampling of 100 digits; generation 1."""
    true = {"Running": "Running", "Succeeded": "Complete", "Failed": "Failed"}.get(phase or "")
    condition = {
        "type": true,
        "status": "True",
        "reason": "It",
        "message": f"It is {phase}.",
        "lastTransitionTime": "2026-11-23T16:00:00Z",
    }
    said = {
        "phase": phase,
        "observedGeneration": 1,
        "conditions": [condition] if true else [],
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
        **({"status": said} if phase else {}),
    }


@dataclass
class RecordedApi:
    """The story; `refusal`, if any, answers every request instead.

    Attributes:
        owners: field of the spec -> its manager, without which no apply changes it.
        patches: the bodies of the merge patches that came; each changes the spec of the last state.
    """

    story: list[Document]
    refusal: tuple[int, str] | None = None
    owners: dict[str, str] = field(default_factory=dict)
    told: int = field(default=0, init=False)
    patches: list[Document] = field(default_factory=list, init=False)

    @contextmanager
    def kubeconfig(self, folder: Path) -> Iterator[Path]:
        """Serves for the time of the block."""
        story = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, lines = story.answer(self.path)
                self.send_response(status)
                self.end_headers()
                for line in lines:
                    self.wfile.write(json.dumps(line).encode() + b"\n")

            def do_PATCH(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = story.change(json.loads(body), self.headers["Content-Type"])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                """Nothing is written into the tests' output."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield write_kubeconfig(folder, server.server_port)
            finally:
                server.shutdown()
                thread.join()

    def change(self, body: Document, content_type: str) -> tuple[int, Document]:
        now = self.story[-1]
        if content_type == "application/merge-patch+json":
            self.patches.append(body)
        else:
            assert content_type == "application/apply-patch+yaml"
            wanted, has = body["spec"], now["spec"]
            taken = [it for it in self.owners if it in wanted and wanted[it] != has.get(it)]
            if taken:
                return 409, conflict({it: self.owners[it] for it in taken})
        self.story[-1] = now | {"spec": now["spec"] | body["spec"]}
        return 200, self.story[-1]

    def answer(self, path: str) -> tuple[int, list[Document]]:
        if self.refusal:
            code, message = self.refusal
            return code, [{"kind": "Status", "message": message}]
        assert path.startswith(_PATH), path
        if path.startswith(f"{_PATH}/"):
            return 200, [self.story[self.told]]
        if "watch=true" in path:
            rest, self.told = self.story[self.told + 1 :], len(self.story) - 1
            return 200, [{"type": "MODIFIED", "object": state} for state in rest]
        now = self.story[self.told]
        version = {"resourceVersion": now["metadata"]["resourceVersion"]}
        return 200, [{"kind": "DDPMSamplingList", "metadata": version, "items": [now]}]


def conflict(fields: dict[str, str]) -> Document:
    """As the API server says that others have set them."""
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{manager}" using ddpm-ray.io/v1alpha1',
            "field": f".spec.{name}",
        }
        for name, manager in fields.items()
    ]
    message = f"Apply failed with {len(fields)} conflicts"
    return {"kind": "Status", "reason": "Conflict", "message": message, "details": {"causes": causes}}


def write_kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "kubeconfig"
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "research"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path
