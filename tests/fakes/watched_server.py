"""The small API server as kopf needs it: it says what kinds there are, and tells of what changes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from aiohttp import web

from tests.fakes.api_server import ApiServer, Document

WATCHED = ("ddpmsamplings", "pods", "rayclusters")

# kopf begins only where it finds namespaces, whether it looks at them or not.
_KINDS = {
    "/api/v1": [("Pod", "pods"), ("Namespace", "namespaces")],
    "/apis/ray.io/v1": [("RayCluster", "rayclusters")],
    "/apis/ddpm-ray.io/v1alpha1": [("DDPMSampling", "ddpmsamplings")],
}
_VERBS = ["list", "watch", "patch", "get"]


@dataclass
class WatchedServer(ApiServer):
    """As `ApiServer`, with discovery and watches.

    Attributes:
        asked: method, path and query of every request.
        watched: plurals, as their watches begin.
    """

    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    watched: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _watches: dict[str, asyncio.Queue[Document]] = field(default_factory=dict)

    def tell(self, plural: str, type: str, document: Document) -> None:
        """An event on the one watch of this kind."""
        self._watches[plural].put_nowait({"type": type, "object": {**document}})

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append((request.method, request.path, dict(request.query)))
        found = _discovery(request.path)
        if found:
            return web.json_response(found)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        return await super()._answer(request)

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        events = self._watches.setdefault(plural, asyncio.Queue())
        response = web.StreamResponse()
        await response.prepare(request)
        self.watched.put_nowait(plural)
        while True:
            await response.write(json.dumps(await events.get()).encode() + b"\n")


def kubeconfig(address: str, folder: Path) -> Path:
    """A file by which clients find the server."""
    named = {"name": "a", "cluster": {"server": address}, "user": {}, "context": {"cluster": "a", "user": "a"}}
    file = folder / "kubeconfig"
    parts = {part: [named] for part in ("clusters", "users", "contexts")}
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "a", **parts}))
    return file


def _discovery(path: str) -> Document | None:
    if path == "/version":
        return {"major": "1", "minor": "35"}
    if path == "/api":
        return {"versions": ["v1"]}
    if path == "/apis":
        versions = [at.split("/")[2:] for at in _KINDS if at.startswith("/apis/")]
        return {
            "groups": [
                {"name": group, "preferredVersion": {"version": version}, "versions": [{"version": version}]}
                for group, version in versions
            ]
        }
    if path in _KINDS:
        return {
            "resources": [
                {"kind": kind, "name": plural, "singularName": kind.lower(), "namespaced": True, "verbs": _VERBS}
                for kind, plural in _KINDS[path]
            ]
        }
    return None
