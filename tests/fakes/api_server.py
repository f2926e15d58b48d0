"""A small API server over HTTP, with a KubeRay, a kubelet and a driver behind it, that can fail at any request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from ddpm_operator.kube.client import KubeApi

Document = dict[str, Any]
Trouble = Literal["refused", "lost"]

SAMPLINGS = "/apis/ddpm-ray.io/v1alpha1/namespaces/research/ddpmsamplings"
CLUSTERS = "/apis/ray.io/v1/namespaces/research/rayclusters"
PODS = "/api/v1/namespaces/research/pods"
LISTED = {"ddpmsamplings", "rayclusters", "pods"}
BEGAN = "2026-11-23T16:00:00Z"


@dataclass
class ApiServer:
    """Objects by their path.

    Attributes:
        fails_at: number of the request, from 0, that goes wrong.
        trouble: whether that request is refused, or carried out and its answer lost.
        away: numbers of requests that are refused with `away_with`; 0: the connection ends without an answer.
        address: where it serves.
        unknown: a path below which there is nothing, as of a kind that has no CRD.
        changed: how often each path was made, applied (less a status) or deleted.
    """

    objects: dict[str, Document] = field(default_factory=dict)
    fails_at: int | None = None
    trouble: Trouble = "refused"
    away: range = range(0)
    away_with: int = 500
    requests: int = 0
    unknown: str = ""
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    address: str = ""
    _version: int = 0

    def put(self, path: str, document: Document) -> Document:
        """Stores an object as the API server would, with metadata of its own."""
        self._version += 1
        metadata = {
            "uid": f"uid-{self._version}",
            "creationTimestamp": BEGAN,
            "generation": 1,
            "namespace": "research",
        }
        document["metadata"] = metadata | document["metadata"] | {"resourceVersion": str(self._version)}
        self.objects[path] = document
        return document

    def below(self, path: str) -> list[Document]:
        return [found for at, found in self.objects.items() if at.startswith(f"{path}/")]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KubeApi]:
        """Serves for the time of the block; yields a client."""
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.address = f"http://{host}:{port}"
            async with ApiClient(Configuration(host=self.address)) as client:
                yield KubeApi(client)
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        number, self.requests = self.requests, self.requests + 1
        if number == self.fails_at and self.trouble == "refused":
            return _refusal(500, "InternalError")
        if number in self.away:
            if not self.away_with and request.transport:
                request.transport.close()
            return _refusal(self.away_with or 500, "Away")
        if self.unknown and request.path.startswith(self.unknown):
            return web.Response(status=404, text="404 page not found")
        body = json.loads(await request.text() or "{}")
        if request.method == "GET" and request.path.rpartition("/")[2] in LISTED:
            return self._list(request)
        answer = {"GET": self._get, "POST": self._create, "PATCH": self._apply, "DELETE": self._delete}[request.method](
            request.path, body
        )
        if number == self.fails_at and request.transport:
            request.transport.close()
        return answer

    def _get(self, path: str, _: Document) -> web.Response:
        found = self.objects.get(path)
        return web.json_response(found) if found else _refusal(404, "NotFound")

    def _list(self, request: web.BaseRequest) -> web.Response:
        """Objects of a namespace or of all, by their labels, page by page. A token is the number of the next."""
        before, _, plural = request.path.rpartition("/")
        where = before if "/namespaces/" in before else f"{before}/namespaces"
        name, _, value = request.query.get("labelSelector", "").partition("=")
        found = [
            it
            for at, it in self.objects.items()
            if at.startswith(f"{where}/")
            and at.split("/")[-2] == plural
            and (not name or it["metadata"].get("labels", {}).get(name) == value)
        ]
        first = int(request.query.get("continue", 0))
        end = first + int(request.query.get("limit", len(found) + 1))
        further = {"continue": str(end)} if end < len(found) else {}
        metadata = {"resourceVersion": str(self._version), **further}
        return web.json_response({"kind": "List", "metadata": metadata, "items": found[first:end]})

    def _create(self, path: str, body: Document) -> web.Response:
        at = f"{path}/{body['metadata']['name']}"
        if at in self.objects:
            return _refusal(409, "AlreadyExists")
        self.changed["made", at] += 1
        return web.json_response(self.put(at, body), status=201)

    def _apply(self, path: str, body: Document) -> web.Response:
        at = path.removesuffix("/status")
        found = self.objects.get(at)
        if path != at:
            if not found:
                return _refusal(404, "NotFound")
            asked = {name: it for name, it in body["metadata"].items() if name in ("uid", "resourceVersion")}
            if not asked.items() <= found["metadata"].items():
                return _refusal(409, "Conflict")
            status = body["status"]
            if set(status) == {"conditions"}:  # another manager's apply takes nothing away
                said = {it["type"]: it for it in found.get("status", {}).get("conditions", ())}
                said |= {it["type"]: it for it in status["conditions"]}
                status = found.get("status", {}) | {"conditions": list(said.values())}
            return web.json_response(self.put(at, found | {"status": status}))
        self.changed["applied", at] += 1
        return web.json_response(self.put(at, body))

    def _delete(self, path: str, body: Document) -> web.Response:
        found = self.objects.get(path)
        if not found:
            return _refusal(404, "NotFound", path.split("/")[-2])
        uid = found["metadata"]["uid"]
        if body["preconditions"]["uid"] != uid:
            return _refusal(409, "Conflict")
        self.changed["deleted", path] += 1
        if found["metadata"].get("finalizers"):
            going = found["metadata"] | {"deletionTimestamp": BEGAN}
            return web.json_response(self.put(path, found | {"metadata": going}))
        del self.objects[path]
        for at, other in list(self.objects.items()):
            if uid in [owner["uid"] for owner in other["metadata"].get("ownerReferences", ())]:
                del self.objects[at]
        return web.json_response({"kind": "Status", "status": "Success"})


def kubelet_moves(server: ApiServer) -> None:
    """Every RayCluster whose Secret is there gets a head that is ready."""
    for cluster in server.below(CLUSTERS):
        metadata = cluster["metadata"]
        name = metadata["name"]
        at = f"{PODS}/{name}-head"
        secret = cluster["spec"]["authOptions"]["secretName"]
        if at in server.objects or f"/api/v1/namespaces/research/secrets/{secret}" not in server.objects:
            continue
        labels = metadata["labels"] | {"ray.io/cluster": name, "ray.io/node-type": "head"}
        owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": name, "uid": metadata["uid"]}
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": BEGAN} for kind in ("PodScheduled", "Ready")
        ]
        running = {"name": "ray-head", "state": {"running": {"startedAt": BEGAN}}, "imageID": "worker@sha256:ab"}
        status = {"phase": "Running", "podIP": "ip", "conditions": conditions, "containerStatuses": [running]}
        server.put(
            at,
            {"metadata": {"name": f"{name}-head", "labels": labels, "ownerReferences": [owner]}, "status": status},
        )


def _refusal(status: int, reason: str, kind: str = "") -> web.Response:
    details = {"details": {"kind": kind}} if kind else {}
    document = {"kind": "Status", "reason": reason, "message": f"it is {reason}", **details}
    return web.json_response(document, status=status)
