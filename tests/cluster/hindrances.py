"""What stands in a sampling's way for a time: a Deployment that is scaled to nothing, a pod that cannot go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kube import Cluster, Manifest, Namespace

SEEN_WITHIN = 60.0
_MERGE = "application/merge-patch+json"
_FINALIZER = "ddpm-ray.io/held-by-a-test"


@contextmanager
def without(cluster: Cluster, deployment: str) -> Iterator[Manifest]:
    """The one Deployment of this name, wherever it is, has no pods for the time of the block, which gets it."""
    deployments = cluster.resource("apps/v1", "Deployment")
    (found,) = deployments.get(field_selector=f"metadata.name={deployment}").to_dict()["items"]
    home = Namespace(cluster, found["metadata"]["namespace"])
    labels = found["spec"]["selector"]["matchLabels"]

    def scale(replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        deployments.patch(name=deployment, namespace=home.name, body=body, content_type=_MERGE)

    def ready(seen: Manifest) -> bool:
        return bool(seen.get("status", {}).get("readyReplicas"))

    scale(0)
    try:
        home.wait_for_none("v1", "Pod", SEEN_WITHIN, ",".join(f"{name}={value}" for name, value in labels.items()))
        yield found
    finally:
        scale(found["spec"]["replicas"])
        home.wait("apps/v1", "Deployment", deployment, ready, SEEN_WITHIN, f"{deployment} to be back")


@contextmanager
def unserved(cluster: Cluster, crd: str, version: str) -> Iterator[None]:
    """The API server knows nothing of a version of a kind for the time of the block; its objects stay."""
    definitions = cluster.resource("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    versions = definitions.get(name=crd).to_dict()["spec"]["versions"]
    at = [one["name"] for one in versions].index(version)

    def serve(served: bool) -> None:
        body = [{"op": "replace", "path": f"/spec/versions/{at}/served", "value": served}]
        definitions.patch(name=crd, body=body, content_type="application/json-patch+json")

    serve(False)
    try:
        yield
    finally:
        serve(True)


@contextmanager
def without_right(cluster: Cluster, role: str, resource: str, verb: str) -> Iterator[None]:
    """A ClusterRole does not let its accounts do something for the time of the block."""
    roles = cluster.resource("rbac.authorization.k8s.io/v1", "ClusterRole")
    rules = roles.get(name=role).to_dict()["rules"]
    less = [
        rule | {"verbs": [it for it in rule["verbs"] if it != verb or resource not in rule["resources"]]}
        for rule in rules
    ]
    roles.patch(name=role, body={"rules": less}, content_type=_MERGE)
    try:
        yield
    finally:
        roles.patch(name=role, body={"rules": rules}, content_type=_MERGE)


@contextmanager
def held(namespace: Namespace, pod: str) -> Iterator[None]:
    """A pod that is deleted within the block stays until its end."""
    pods = namespace.cluster.resource("v1", "Pod")

    def finalizers(names: list[str]) -> None:
        body = {"metadata": {"finalizers": names}}
        pods.patch(name=pod, namespace=namespace.name, body=body, content_type=_MERGE)

    finalizers([_FINALIZER])
    try:
        yield
    finally:
        finalizers([])
