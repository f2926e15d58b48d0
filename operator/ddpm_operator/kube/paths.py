"""URL paths of the API server's collections that the operator and the client use."""

from __future__ import annotations

from ddpm_operator.api import GROUP, PLURAL, VERSION

ALL_SAMPLINGS = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
ALL_CLUSTERS = "/apis/ray.io/v1/rayclusters"
ALL_PODS = "/api/v1/pods"


def samplings(namespace: str) -> str:
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"


def clusters(namespace: str) -> str:
    return f"/apis/ray.io/v1/namespaces/{namespace}/rayclusters"


def network_policies(namespace: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"


def events(namespace: str) -> str:
    return f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"


def secrets(namespace: str) -> str:
    return _core(namespace, "secrets")


def claims(namespace: str) -> str:
    return _core(namespace, "persistentvolumeclaims")


def config_maps(namespace: str) -> str:
    return _core(namespace, "configmaps")


def pods(namespace: str) -> str:
    return _core(namespace, "pods")


def node(name: str) -> str:
    return f"/api/v1/nodes/{name}"


def _core(namespace: str, plural: str) -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}"
