"""The fake API server with what kopf needs in addition: discovery and watches."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from aiohttp import web

from tests.fakes.api_server import ApiServer, Document

WATCHED = ("ddpmsamplings", "pods", "rayclusters")

# kopf starts only if namespaces are discovered, whether it watches them or not.
_KINDS = {
    "/api/v1": [("Pod", "pods"), ("Namespace", "namespaces")],
    "/apis/ray.io/v1": [("RayCluster", "rayclusters")],
    "/apis/ddpm-ray.io/v1alpha1": [("DDPMSampling", "ddpmsamplings")],
}
_VERBS = ["list", "watch", "patch", "get"]


@dataclass
class WatchedServer(ApiServer):
    """An `ApiServer` with discovery and watches.

    Attributes:
        queries: method, path and query of every request.
        watch_started: plurals of resources, as their watches start.
    """

    queries: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    watch_started: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    _watches: dict[str, asyncio.Queue[Document]] = field(default_factory=dict)

    def send_event(self, plural: str, type: str, document: Document) -> None:
        """Sends an event to the watch of this resource."""
        self._watches[plural].put_nowait({"type": type, "object": {**document}})

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.queries.append((request.method, request.path, dict(request.query)))
        discovery = _discovery(request.path)
        if discovery:
            return web.json_response(discovery)
        if request.query.get("watch") == "true":
            return await self._watch(request)
        return await super()._handle(request)

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        plural = request.path.rpartition("/")[2]
        events = self._watches.setdefault(plural, asyncio.Queue())
        response = web.StreamResponse()
        await response.prepare(request)
        self.watch_started.put_nowait(plural)
        while True:
            await response.write(json.dumps(await events.get()).encode() + b"\n")


def kubeconfig(address: str, folder: Path) -> Path:
    """Writes a kubeconfig for the server; returns its path."""
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
        versions = [group_path.split("/")[2:] for group_path in _KINDS if group_path.startswith("/apis/")]
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
