"""Temporary disruptions: a Deployment scaled to zero, a missing permission, a pod that cannot be deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kube import Cluster, Manifest, Namespace

SEEN_TIMEOUT = 60.0
_MERGE = "application/merge-patch+json"
_FINALIZER = "ddpm-ray.io/held-by-a-test"


@contextmanager
def scaled_to_zero(cluster: Cluster, deployment: str) -> Iterator[Manifest]:
    """Scales the Deployment of this name, in any namespace, to zero during the block; yields the Deployment."""
    deployments = cluster.resource("apps/v1", "Deployment")
    (found,) = deployments.get(field_selector=f"metadata.name={deployment}").to_dict()["items"]
    namespace = Namespace(cluster, found["metadata"]["namespace"])
    labels = found["spec"]["selector"]["matchLabels"]

    def scale(replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        deployments.patch(name=deployment, namespace=namespace.name, body=body, content_type=_MERGE)

    def ready(seen: Manifest) -> bool:
        return bool(seen.get("status", {}).get("readyReplicas"))

    scale(0)
    try:
        namespace.wait_for_none(
            "v1", "Pod", SEEN_TIMEOUT, ",".join(f"{name}={value}" for name, value in labels.items())
        )
        yield found
    finally:
        scale(found["spec"]["replicas"])
        namespace.wait("apps/v1", "Deployment", deployment, ready, SEEN_TIMEOUT, f"{deployment} to be ready again")


@contextmanager
def crd_version_unserved(cluster: Cluster, crd: str, version: str) -> Iterator[None]:
    """Stops serving a version of a CRD during the block; its objects are kept."""
    definitions = cluster.resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    versions = definitions.get(name=crd).to_dict()["spec"]["versions"]
    index = [one["name"] for one in versions].index(version)

    def serve(served: bool) -> None:
        body = [{"op": "replace", "path": f"/spec/versions/{index}/served", "value": served}]
        definitions.patch(name=crd, body=body, content_type="application/json-patch+json")

    serve(False)
    try:
        yield
    finally:
        serve(True)


@contextmanager
def without_permission(cluster: Cluster, role: str, resource: str, verb: str) -> Iterator[None]:
    """Removes a verb on a resource from a ClusterRole during the block."""
    roles = cluster.resource("rbac.authorization.k8s.io/v1", "ClusterRole")
    rules = roles.get(name=role).to_dict()["rules"]
    reduced = [
        rule | {"verbs": [it for it in rule["verbs"] if it != verb or resource not in rule["resources"]]}
        for rule in rules
    ]
    roles.patch(name=role, body={"rules": reduced}, content_type=_MERGE)
    try:
        yield
    finally:
        roles.patch(name=role, body={"rules": rules}, content_type=_MERGE)


@contextmanager
def deletion_blocked(namespace: Namespace, pod: str) -> Iterator[None]:
    """Keeps a pod that is deleted during the block until its end, with a finalizer."""
    pods = namespace.cluster.resource("v1", "Pod")

    def finalizers(names: list[str]) -> None:
        body = {"metadata": {"finalizers": names}}
        pods.patch(name=pod, namespace=namespace.name, body=body, content_type=_MERGE)

    finalizers([_FINALIZER])
    try:
        yield
    finally:
        finalizers([])
