"""What somebody wants to see of a namespace in which a test failed, written to a folder before it is gone."""

from __future__ import annotations

from pathlib import Path

import yaml
from kubernetes.client import ApiException
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

from tests.cluster.kube import Manifest, Namespace

KINDS = (
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "PersistentVolumeClaim"),
    ("ray.io/v1", "RayCluster"),
    ("ray.io/v1", "RayJob"),
    ("ddpm-ray.io/v1alpha1", "DDPMSampling"),
)
OPERATOR = "ddpm-ray"


def collect(namespace: Namespace, folder: Path) -> None:
    """Events in their order, every object with its status, every container's log, KubeRay's last words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.txt").write_text("".join(map(_event_line, _events(namespace))))
    for api_version, kind in KINDS:
        for item in _items(namespace, api_version, kind):
            item["metadata"].pop("managedFields", None)
            (folder / f"{kind.lower()}-{item['metadata']['name']}.yaml").write_text(yaml.safe_dump(item))
    for place in (namespace, Namespace(namespace.cluster, OPERATOR)):
        for pod in _items(place, "v1", "Pod"):
            _write_logs(place, pod, folder)


def _write_logs(namespace: Namespace, pod: Manifest, folder: Path) -> None:
    name = pod["metadata"]["name"]
    status = pod.get("status", {})
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        path = folder / f"log-{name}-{container['name']}.txt"
        path.write_text(namespace.logs(name, container["name"]))
        if container["restartCount"]:
            before = namespace.logs(name, container["name"], previous=True)
            path.with_suffix(".previous.txt").write_text(before)


def _events(namespace: Namespace) -> list[Manifest]:
    return sorted(_items(namespace, "v1", "Event"), key=lambda event: event["metadata"]["creationTimestamp"])


def _event_line(event: Manifest) -> str:
    about = event["involvedObject"]
    when = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    return f"{when} {event['type']} {about['kind']}/{about.get('name')} {event['reason']}: {event['message']}\n"


def _items(namespace: Namespace, api_version: str, kind: str) -> list[Manifest]:
    """The objects, or none where the cluster does not know the kind or answers no more."""
    try:
        return namespace.list(api_version, kind)
    except (ApiException, DynamicApiError, ResourceNotFoundError):
        return []
