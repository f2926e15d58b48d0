"""A user with the permissions of the chart's editor role in one namespace, and no others."""

from __future__ import annotations

from pathlib import Path

import yaml
from kubernetes.client import AuthenticationV1TokenRequest, V1TokenRequestSpec

from tests.cluster.kube import Namespace
from tests.cluster.operator_release import RELEASE

NAME = "editor"
ROLE = f"{RELEASE}-operator-editor"
TOKEN_SECONDS = 3600


def editor_of(namespace: Namespace, folder: Path) -> Path:
    """Creates the user and writes its kubeconfig to a folder."""
    namespace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": NAME}],
        },
    )
    request = AuthenticationV1TokenRequest(spec=V1TokenRequestSpec(audiences=[], expiration_seconds=TOKEN_SECONDS))
    token = namespace.cluster.core.create_namespaced_service_account_token(NAME, namespace.name, request)
    server = namespace.cluster.dynamic.configuration
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server.host, "certificate-authority": server.ssl_ca_cert}}],
        "users": [{"name": NAME, "user": {"token": token.status.token}}],
        "contexts": [{"name": NAME, "context": {"cluster": "c", "user": NAME, "namespace": namespace.name}}],
        "current-context": NAME,
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
