"""Writes objects, events and logs of a cluster on which a test failed to a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml
from kubernetes.client import ApiException, AppsV1Api, V1ObjectMeta
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError
from urllib3.exceptions import HTTPError

from tests.cluster.kube import Cluster, Manifest, Namespace

T = TypeVar("T")

KINDS = (
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ResourceQuota"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("ray.io/v1", "RayCluster"),
    ("ray.io/v1", "RayJob"),
    ("ddpm-ray.io/v1alpha1", "DDPMSampling"),
)
OPERATORS = {"ddpm-operator", "kuberay-operator"}
CLUSTER_ERRORS = (ApiException, DynamicApiError, ResourceNotFoundError, HTTPError)


def collect(cluster: Cluster, folder: Path) -> None:
    """Writes events, objects and logs of every existing namespace of tests, in a subfolder each.

    Also writes the nodes and the logs of both operators. Replaces the folder of an earlier failure. Omits what the
    cluster cannot provide.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for node in _items(Namespace(cluster, ""), "v1", "Node"):
        _write("node", node, folder)
    for name in _or_default(cluster.present, []):
        _write_namespace(Namespace(cluster, name), folder / name)
    for name in _or_default(lambda: _operator_namespaces(cluster), []):
        _write_logs(Namespace(cluster, name), folder)


def _operator_namespaces(cluster: Cluster) -> list[str]:
    """Returns the namespaces of the operators, ours and KubeRay's, however they were installed."""
    deployments = AppsV1Api(cluster.dynamic.client).list_deployment_for_all_namespaces().items
    return sorted({each.metadata.namespace for each in deployments if _names(each.metadata) & OPERATORS})


def _names(metadata: V1ObjectMeta) -> set[str | None]:
    return {metadata.name, (metadata.labels or {}).get("app.kubernetes.io/name")}


def _write_namespace(namespace: Namespace, folder: Path) -> None:
    folder.mkdir()
    (folder / "events.txt").write_text("".join(map(_event_line, _events(namespace))))
    for api_version, kind in KINDS:
        for item in _items(namespace, api_version, kind):
            _write(kind.lower(), item, folder)
    _write_logs(namespace, folder)


def _write(kind: str, item: Manifest, folder: Path) -> None:
    item["metadata"].pop("managedFields", None)
    (folder / f"{kind}-{item['metadata']['name']}.yaml").write_text(yaml.safe_dump(item))


def _write_logs(namespace: Namespace, folder: Path) -> None:
    for pod in _items(namespace, "v1", "Pod"):
        name, status = pod["metadata"]["name"], pod.get("status", {})
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            path = folder / f"log-{name}-{container['name']}.txt"
            path.write_text(_log(namespace, name, container["name"]))
            if container["restartCount"]:
                before = _log(namespace, name, container["name"], previous=True)
                path.with_suffix(".previous.txt").write_text(before)


def _log(namespace: Namespace, pod: str, container: str, *, previous: bool = False) -> str:
    return _or_default(lambda: namespace.logs(pod, container, previous=previous), "no log: API server unavailable")


def _events(namespace: Namespace) -> list[Manifest]:
    return sorted(_items(namespace, "v1", "Event"), key=lambda event: event["metadata"]["creationTimestamp"])


def _event_line(event: Manifest) -> str:
    about = event["involvedObject"]
    when = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    return f"{when} {event['type']} {about['kind']}/{about.get('name')} {event['reason']}: {event['message']}\n"


def _items(namespace: Namespace, api_version: str, kind: str) -> list[Manifest]:
    return _or_default(lambda: namespace.list(api_version, kind), [])


def _or_default(request: Callable[[], T], default: T) -> T:
    """Returns the response, or the default if the cluster does not know the kind or does not respond."""
    try:
        return request()
    except CLUSTER_ERRORS:
        return default
