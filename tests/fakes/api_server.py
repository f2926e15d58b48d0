"""A small Kubernetes API server over HTTP, which keeps objects in memory and can fail at any request."""

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
FailureMode = Literal["rejected", "response lost"]

SAMPLINGS = "/apis/ddpm-ray.io/v1alpha1/namespaces/research/ddpmsamplings"
CLUSTERS = "/apis/ray.io/v1/namespaces/research/rayclusters"
PODS = "/api/v1/namespaces/research/pods"
LISTED = {"ddpmsamplings", "rayclusters", "pods"}
CREATED = "2026-11-23T16:00:00Z"


@dataclass
class ApiServer:
    """An API server with one namespace, `research`.

    Attributes:
        objects: the stored objects, by path.
        fail_at: number of the request, from 0, that fails.
        failure_mode: whether that request is rejected, or executed without a response.
        unavailable: numbers of the requests that are rejected with `unavailable_status`.
        unavailable_status: an HTTP status; 0: the connection is closed without a response.
        requests: number of requests so far.
        missing_crd: a path below which every request gets 404, as if the CRD were missing.
        writes: how often each path was "created", "applied" (except its status) or "deleted".
        address: base URL of the server.
    """

    objects: dict[str, Document] = field(default_factory=dict)
    fail_at: int | None = None
    failure_mode: FailureMode = "rejected"
    unavailable: range = range(0)
    unavailable_status: int = 500
    requests: int = 0
    missing_crd: str = ""
    writes: Counter[tuple[str, str]] = field(default_factory=Counter)
    address: str = ""
    _version: int = 0

    def put(self, path: str, document: Document) -> Document:
        """Stores an object and fills in the metadata that an API server sets."""
        self._version += 1
        metadata = {
            "uid": f"uid-{self._version}",
            "creationTimestamp": CREATED,
            "generation": 1,
            "namespace": "research",
        }
        document["metadata"] = metadata | document["metadata"] | {"resourceVersion": str(self._version)}
        self.objects[path] = document
        return document

    def objects_in(self, collection: str) -> list[Document]:
        return [stored for path, stored in self.objects.items() if path.startswith(f"{collection}/")]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KubeApi]:
        """Serves during the block; yields a client."""
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            self.address = f"http://{host}:{port}"
            async with ApiClient(Configuration(host=self.address)) as client:
                yield KubeApi(client)
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        number, self.requests = self.requests, self.requests + 1
        if number == self.fail_at and self.failure_mode == "rejected":
            return _error(500, "InternalError")
        if number in self.unavailable:
            if not self.unavailable_status and request.transport:
                request.transport.close()
            return _error(self.unavailable_status or 500, "Unavailable")
        if self.missing_crd and request.path.startswith(self.missing_crd):
            return web.Response(status=404, text="404 page not found")
        body = json.loads(await request.text() or "{}")
        if request.method == "GET" and request.path.rpartition("/")[2] in LISTED:
            return self._get_list(request)
        methods = {"GET": self._get, "POST": self._create, "PATCH": self._apply, "DELETE": self._delete}
        response = methods[request.method](request.path, body)
        if number == self.fail_at and request.transport:
            request.transport.close()
        return response

    def _get(self, path: str, _: Document) -> web.Response:
        stored = self.objects.get(path)
        return web.json_response(stored) if stored else _error(404, "NotFound")

    def _get_list(self, request: web.BaseRequest) -> web.Response:
        """Lists a namespace or all, filtered by one label, in pages. The continue token is the next index."""
        parent, _, plural = request.path.rpartition("/")
        scope = parent if "/namespaces/" in parent else f"{parent}/namespaces"
        label, _, value = request.query.get("labelSelector", "").partition("=")
        matching = [
            stored
            for path, stored in self.objects.items()
            if path.startswith(f"{scope}/")
            and path.split("/")[-2] == plural
            and (not label or stored["metadata"].get("labels", {}).get(label) == value)
        ]
        first = int(request.query.get("continue", 0))
        end = first + int(request.query.get("limit", len(matching) + 1))
        token = {"continue": str(end)} if end < len(matching) else {}
        metadata = {"resourceVersion": str(self._version), **token}
        return web.json_response({"kind": "List", "metadata": metadata, "items": matching[first:end]})

    def _create(self, collection: str, body: Document) -> web.Response:
        path = f"{collection}/{body['metadata']['name']}"
        if path in self.objects:
            return _error(409, "AlreadyExists")
        self.writes["created", path] += 1
        return web.json_response(self.put(path, body), status=201)

    def _apply(self, path: str, body: Document) -> web.Response:
        object_path = path.removesuffix("/status")
        stored = self.objects.get(object_path)
        if path != object_path:
            if not stored:
                return _error(404, "NotFound")
            expected = {name: it for name, it in body["metadata"].items() if name in ("uid", "resourceVersion")}
            if not expected.items() <= stored["metadata"].items():
                return _error(409, "Conflict")
            status = body["status"]
            if set(status) == {"conditions"}:  # the apply of another field manager removes no field
                conditions = {it["type"]: it for it in stored.get("status", {}).get("conditions", ())}
                conditions |= {it["type"]: it for it in status["conditions"]}
                status = stored.get("status", {}) | {"conditions": [*conditions.values()]}
            return web.json_response(self.put(object_path, stored | {"status": status}))
        self.writes["applied", object_path] += 1
        return web.json_response(self.put(object_path, body))

    def _delete(self, path: str, body: Document) -> web.Response:
        stored = self.objects.get(path)
        if not stored:
            return _error(404, "NotFound", path.split("/")[-2])
        uid = stored["metadata"]["uid"]
        if body["preconditions"]["uid"] != uid:
            return _error(409, "Conflict")
        self.writes["deleted", path] += 1
        if stored["metadata"].get("finalizers"):
            metadata = stored["metadata"] | {"deletionTimestamp": CREATED}
            return web.json_response(self.put(path, stored | {"metadata": metadata}))
        del self.objects[path]
        for other_path, other in [*self.objects.items()]:
            if uid in [owner["uid"] for owner in other["metadata"].get("ownerReferences", ())]:
                del self.objects[other_path]
        return web.json_response({"kind": "Status", "status": "Success"})


def start_heads(server: ApiServer) -> None:
    """Does what KubeRay and the kubelet do: gives every RayCluster whose Secret exists a head pod that is ready."""
    for cluster in server.objects_in(CLUSTERS):
        metadata = cluster["metadata"]
        name = metadata["name"]
        path = f"{PODS}/{name}-head"
        secret = cluster["spec"]["authOptions"]["secretName"]
        if path in server.objects or f"/api/v1/namespaces/research/secrets/{secret}" not in server.objects:
            continue
        labels = metadata["labels"] | {"ray.io/cluster": name, "ray.io/node-type": "head"}
        owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": name, "uid": metadata["uid"]}
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": CREATED} for kind in ("PodScheduled", "Ready")
        ]
        running = {"name": "ray-head", "state": {"running": {"startedAt": CREATED}}, "imageID": "worker@sha256:ab"}
        status = {"phase": "Running", "podIP": "ip", "conditions": conditions, "containerStatuses": [running]}
        server.put(
            path,
            {
                "metadata": {"name": f"{name}-head", "labels": labels, "ownerReferences": [owner]},
                "spec": {"nodeName": "node-a"},
                "status": status,
            },
        )


def _error(status: int, reason: str, kind: str = "") -> web.Response:
    details = {"details": {"kind": kind}} if kind else {}
    document = {"kind": "Status", "reason": reason, "message": f"the error is {reason}", **details}
    return web.json_response(document, status=status)
