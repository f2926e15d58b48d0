"""What somebody wants to see of a cluster on which a test failed, written to a folder before it is gone."""

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
NO_ANSWER = (ApiException, DynamicApiError, ResourceNotFoundError, HTTPError)


def collect(cluster: Cluster, folder: Path) -> None:
    """Of every namespace that tests have made and that is not gone: events, objects with their status, logs.

    Beside their folders lie the nodes and both operators' logs. What an earlier failure has left is removed;
    what the cluster does not answer is left out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for node in _items(Namespace(cluster, ""), "v1", "Node"):
        _write("node", node, folder)
    for name in _asked(cluster.present, []):
        _write_namespace(Namespace(cluster, name), folder / name)
    for name in _asked(lambda: _operators_namespaces(cluster), []):
        _write_logs(Namespace(cluster, name), folder)


def _operators_namespaces(cluster: Cluster) -> list[str]:
    """Where the operators are, ours and KubeRay's, whoever has installed them."""
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
    return _asked(lambda: namespace.logs(pod, container, previous=previous), "no log: the API server does not answer")


def _events(namespace: Namespace) -> list[Manifest]:
    return sorted(_items(namespace, "v1", "Event"), key=lambda event: event["metadata"]["creationTimestamp"])


def _event_line(event: Manifest) -> str:
    about = event["involvedObject"]
    when = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    return f"{when} {event['type']} {about['kind']}/{about.get('name')} {event['reason']}: {event['message']}\n"


def _items(namespace: Namespace, api_version: str, kind: str) -> list[Manifest]:
    return _asked(lambda: namespace.list(api_version, kind), [])


def _asked(question: Callable[[], T], otherwise: T) -> T:
    """The answer, or something else where the cluster does not know the kind or answers no more."""
    try:
        return question()
    except NO_ANSWER:
        return otherwise
