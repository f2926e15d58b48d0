"""Isolation of namespaces: a sampling cannot read, mount or start anything in another namespace."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException

from ddpm_operator.api import Metadata
from ddpm_operator.manifests.naming import cluster_name, labels
from tests.cluster.editor import editor_of
from tests.cluster.kube import Cluster, Namespace, phase
from tests.cluster.manifests import claim, pod, ray_cluster, secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import LIGHT, Sampling, assert_nothing_left

TIMEOUT = 120.0
LISTENER = """
import select, socket
servers = [socket.create_server(("", port)) for port in (8265, 8500)]
print("listening", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        connection, _ = server.accept()
        connection.settimeout(2)
        print("connection:", connection.recv(4096), flush=True)
"""


@pytest.fixture(scope="module")
def victim(cluster: Cluster, operator: Operator) -> Iterator[Namespace]:
    """A namespace with a claim, credentials and a service account."""
    with cluster.namespace(f"ddpm-victim-{secrets.token_hex(4)}") as namespace:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sampler"}}
        namespace.apply(claim("models"), secret("s3", {"AWS_SECRET_ACCESS_KEY": "the-neighbours"}), account)
        yield namespace


@pytest.mark.draws_nothing
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"credentialsSecretRef": {"name": "VICTIM/s3"}}, "a name must consist of a-z, 0-9, - and ."),
        ({"credentialsSecretRef": {"name": "s3", "namespace": "VICTIM"}}, "field not declared in schema"),
        (
            {"model": {"uri": "pvc://models/../../VICTIM/m.safetensors"}},
            "a path must not contain empty segments, . or ..",
        ),
        ({"model": {"uri": "pvc://VICTIM:models/m.safetensors"}}, "a pvc:// model URI must name a claim and a file"),
        ({"output": {"uri": "pvc://../VICTIM/models"}}, "a pvc:// output URI must name a claim and a folder"),
        ({"queueName": "VICTIM/queue"}, "a label value must consist of at most 63 letters"),
        ({"image": "worker:1\n        hostNetwork: true"}, "image must be an image reference"),
        ({"podOverrides": {"serviceAccountName": "VICTIM/sampler"}}, "a name must consist of a-z, 0-9, - and ."),
        ({"podOverrides": {"imagePullSecrets": [{"name": "VICTIM/s3"}]}}, "a name must consist of a-z, 0-9, - and ."),
        ({"podOverrides": {"labels": {"ray.io/cluster": "theirs"}}}, "reserved for the operator"),
        ({"podOverrides": {"labels": {"ddpm-ray.io/sampling-uid": "theirs"}}}, "reserved for the operator"),
        ({"podOverrides": {"labels": {"kueue.x-k8s.io/queue-name": "theirs"}}}, "reserved for the operator"),
        ({"podOverrides": {"labels": {"app.kubernetes.io/name": "ddpm-operator"}}}, "reserved for the operator"),
        ({"podOverrides": {"annotations": {"ray.io/overwrite-container-cmd": "true"}}}, "reserved for the operator"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else "",
)
def test_references_to_other_namespaces_are_refused(
    namespace: Namespace, victim: Namespace, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ApiException) as refused:
        Sampling.apply(namespace, "thief", _of(LIGHT | fields, victim.name))
    assert message in str(refused.value.body)


def _of(value: Any, victim: str) -> Any:  # noqa: ANN401 - as YAML has them
    if isinstance(value, dict):
        return {key: _of(inner, victim) for key, inner in value.items()}
    if isinstance(value, list):
        return [_of(inner, victim) for inner in value]
    return value.replace("VICTIM", victim) if isinstance(value, str) else value


@pytest.mark.draws_nothing
def test_references_resolve_in_the_own_namespace_only(namespace: Namespace, victim: Namespace) -> None:
    """The other namespace has all objects that are referenced here."""
    fields_by_name: dict[str, dict[str, Any]] = {
        "model": {"model": {"uri": "pvc://models/m.safetensors"}},
        "output": {"output": {"uri": "pvc://models/stolen"}},
        "credentials": {"credentialsSecretRef": {"name": "s3"}},
    }
    thieves = {
        name: Sampling.apply(namespace, name, LIGHT | {"backoffLimit": 0} | fields)
        for name, fields in fields_by_name.items()
    }
    for name, thief in thieves.items():
        failure = thief.wait_for("Failed", TIMEOUT)["status"]["failure"]
        assert failure["reason"] == "ReferenceNotFound", name
        assert ("s3" if name == "credentials" else "models") in failure["message"]
    assert_nothing_left(namespace)
    assert not victim.list("v1", "Pod")


@pytest.mark.draws_nothing
def test_a_service_account_that_is_not_allowed_fails(namespace: Namespace) -> None:
    fields = {"podOverrides": {"serviceAccountName": "default"}}
    failure = Sampling.apply(namespace, "thief", LIGHT | fields).wait_for("Failed", TIMEOUT)["status"]["failure"]
    assert failure["reason"] == "InvalidSpec"
    assert "spec.podOverrides.serviceAccountName: default is not allowed" in failure["message"]
    assert not namespace.list("ray.io/v1", "RayCluster")


def test_impostor_pods_of_another_namespace_are_not_contacted(
    namespace: Namespace, victim: Namespace, worker_image: str
) -> None:
    """A user who can create pods with arbitrary labels gets no token of another namespace's sampling."""
    theirs = Sampling.apply(victim, "digits", LIGHT | {"suspend": True})
    uid = theirs.wait_for("Suspended")["metadata"]["uid"]
    known = Metadata(name="digits", namespace=victim.name, uid=uid)
    of_head = labels(known, 1) | {"ray.io/cluster": cluster_name(known, 1), "ray.io/node-type": "head"}
    # Of another name and suspended, because KubeRay would delete a pod that does not belong to its cluster.
    false_cluster = ray_cluster("impostor", worker_image)
    false_cluster["metadata"]["labels"] = labels(known, 1)
    false_cluster["spec"]["suspend"] = True
    impostor = pod("impostor", worker_image, ["python", "-c", LISTENER])
    impostor["metadata"]["labels"] = of_head
    namespace.apply(false_cluster, impostor)
    namespace.wait("v1", "Pod", "impostor", lambda it: phase(it) == "Running", TIMEOUT, "the impostor to run")

    Sampling.apply(victim, "digits", LIGHT)
    status = theirs.wait_until_complete(16)["status"]
    assert status["attempt"] == 1
    assert "connection:" not in namespace.logs("impostor")


@pytest.mark.draws_nothing
def test_an_editor_has_no_permissions_in_other_namespaces(
    namespace: Namespace, victim: Namespace, operator: Operator, tmp_path: Path
) -> None:
    user = str(editor_of(namespace, tmp_path))

    def may(where: Namespace, verb: str, what: str) -> bool:
        command = ["auth", "can-i", verb, what, "--namespace", where.name, "--kubeconfig", user]
        try:
            return operator.run_kubectl(*command).strip() == "yes"
        except AssertionError:  # kubectl exits with 1 for "no"
            return False

    assert may(namespace, "create", "ddpmsamplings.ddpm-ray.io")
    rights = [("create", "ddpmsamplings.ddpm-ray.io"), ("get", "ddpmsamplings.ddpm-ray.io"), ("get", "secrets")]
    assert [right for right in rights if may(victim, *right)] == []
