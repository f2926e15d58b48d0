"""The NetworkPolicy of an attempt: which connections to and from its pods it allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ddpm_operator.api import Metadata, Spec
from ddpm_operator.manifests.render import Attempt, OperatorPods, network_policy
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.planning.sizing import plan
from tests.support.policies import Endpoint, matches, reaches

MakeSpec = Callable[..., Spec]

OPERATOR = OperatorPods("ddpm-ray", {"app.kubernetes.io/name": "ddpm-operator"})
RAY_PORTS = (6379, 8265, 10001, 8080, 52365, 10002, 19999)
S3_OUTPUT = {"output": {"uri": "s3://bucket/digits"}}
S3_OUTPUT_WITH_CREDENTIALS = {**S3_OUTPUT, "credentialsSecretRef": {"name": "s3"}}
METADATA_SERVICES = (
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fd00:ec2::254", "fd20:ce::254", "fe80::1"),
)
# NAT64 and 6to4 forms of the IPv4 addresses above.
TRANSLATED_ADDRESSES = (
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6464:64c8",
    "64:ff9b::a83f:8110",
    "64:ff9b::c000:c0",
    "2002:a9fe:a9fe::1",
)


def pod_in(address: str, namespace: str, labels: dict[str, str]) -> Endpoint:
    return Endpoint(address, namespace, labels, {"kubernetes.io/metadata.name": namespace})


class Network:
    """The head and a worker of an attempt, the operator pod, and the policies between them."""

    def __init__(self, metadata: Metadata, spec: Spec, *, cloud_identity: bool = False) -> None:
        attempt = Attempt(
            *(metadata, 1, spec, plan(spec), "worker:1", "2.60.0"),
            shared_output=False,
            cloud_identity=cloud_identity,
        )
        self.policies: list[Any] = [network_policy(Templates(), attempt, "uid", OPERATOR)]
        # KubeRay adds this label to every pod of a cluster.
        labels = {**attempt.labels, "ray.io/cluster": attempt.name}
        self.head = pod_in("10.0.0.1", metadata.namespace, labels | {"ray.io/node-type": "head"})
        self.worker = pod_in("10.0.0.2", metadata.namespace, labels | {"ray.io/node-type": "worker"})
        self.operator = pod_in("10.0.0.3", OPERATOR.namespace, {**OPERATOR.labels})

    def open_ports(self, source: Endpoint, *ports: int) -> list[int]:
        return [port for port in ports if reaches(self.policies, source, self.head, port)]


@pytest.fixture
def network(metadata: Metadata, make_spec: MakeSpec) -> Network:
    return Network(metadata, make_spec())


def test_operator_reaches_only_dashboard_and_progress_server(network: Network) -> None:
    assert network.open_ports(network.operator, *RAY_PORTS, 8500) == [8265, 8500]


def test_ray_pods_reach_each_other_on_every_port(network: Network) -> None:
    for source, target in ((network.head, network.worker), (network.worker, network.head)):
        assert all(reaches(network.policies, source, target, port) for port in RAY_PORTS)


@pytest.mark.parametrize("namespace", ["neighbour", "research"])
@pytest.mark.parametrize("labels", [{}, dict(OPERATOR.labels)], ids=["no labels", "operator labels"])
def test_other_pods_reach_no_port(network: Network, namespace: str, labels: dict[str, str]) -> None:
    assert network.open_ports(pod_in("10.0.0.9", namespace, labels), *RAY_PORTS, 8500) == []


def test_pod_with_the_cluster_labels_in_another_namespace_is_isolated(network: Network) -> None:
    impostor = pod_in("10.0.0.9", "neighbour", dict(network.worker.labels))
    assert network.open_ports(impostor, *RAY_PORTS, 8500) == []
    assert not reaches(network.policies, network.head, impostor, 443)


def test_other_pods_in_the_operator_namespace_reach_no_port(network: Network) -> None:
    assert network.open_ports(replace(network.operator, labels={"app": "other"}), *RAY_PORTS, 8500) == []


def test_external_address_reaches_no_port(network: Network) -> None:
    assert network.open_ports(Endpoint("203.0.113.7"), *RAY_PORTS, 8500) == []


def test_sampling_without_remote_uris_reaches_only_dns(network: Network) -> None:
    external, other = Endpoint("203.0.113.7"), pod_in("10.0.0.9", "neighbour", {})
    assert not reaches(network.policies, network.head, external, 443)
    assert not reaches(network.policies, network.head, other, 9000)
    assert reaches(network.policies, network.head, other, 53, "UDP")


@pytest.fixture(scope="module")
def networks(metadata: Metadata, make_spec: MakeSpec) -> list[tuple[Network, Network, bool, bool]]:
    """(network without cloud identity, network with it, may reach the internet, may reach metadata services)."""
    return [
        (
            Network(metadata, make_spec(**fields)),
            Network(metadata, make_spec(**fields), cloud_identity=True),
            internet,
            metadata_services,
        )
        for fields, internet, metadata_services in (
            ({}, False, False),
            ({"model": {"uri": "https://example.com/m.safetensors"}}, True, False),
            ({"model": {"uri": "hf://org/name"}}, True, False),
            (S3_OUTPUT_WITH_CREDENTIALS, True, False),
            (S3_OUTPUT, True, True),
        )
    ]


@pytest.mark.parametrize("address", METADATA_SERVICES + TRANSLATED_ADDRESSES)
def test_metadata_service_is_open_only_for_allowed_cloud_identity(
    networks: list[tuple[Network, Network, bool, bool]], address: str
) -> None:
    for isolated, network, internet, metadata_services in networks:
        assert not reaches(isolated.policies, isolated.head, Endpoint(address), 80)
        assert reaches(network.policies, network.head, Endpoint(address), 80) is metadata_services
        assert reaches(network.policies, network.head, Endpoint("203.0.113.7"), 443) is internet


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"b": "1"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_label_selectors_match_like_kubernetes(selector: dict[str, Any], selected: bool) -> None:
    assert matches(selector, {"a": "1"}) is selected


def test_policy_evaluation_checks_namespace_and_rejects_unknown_fields() -> None:
    pod, other = pod_in("10.0.0.1", "a", {}), pod_in("10.0.0.2", "b", {})
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert reaches([{"metadata": {"namespace": "b"}, "spec": spec}], other, pod, 80)
    assert not reaches([{"metadata": {"namespace": "a"}, "spec": spec}], other, pod, 80)
    with pytest.raises(AssertionError, match="'ingres'"):
        reaches([{"metadata": {"namespace": "a"}, "spec": {**spec, "ingres": []}}], other, pod, 80)
