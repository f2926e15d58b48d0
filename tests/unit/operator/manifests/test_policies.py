"""Who reaches the pods of a sampling, and whom they reach, as the rendered NetworkPolicy says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ddpm_operator.api import Metadata, Spec
from ddpm_operator.manifests.render import Attempt, OperatorPods, network_policy
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.planning.sizing import plan
from tests.support.policies import End, matches, reaches

MakeSpec = Callable[..., Spec]

OPERATOR = OperatorPods("ddpm-ray", {"app.kubernetes.io/name": "ddpm-operator"})
RAY_PORTS = (6379, 8265, 10001, 8080, 52365, 10002, 19999)
IN_A_BUCKET = {"output": {"uri": "s3://bucket/digits"}}
WITH_CREDENTIALS = {**IN_A_BUCKET, "credentialsSecretRef": {"name": "s3"}}
METADATA_SERVICES = (
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fd00:ec2::254", "fd20:ce::254", "fe80::1"),
)
# What a gateway between IPv6 and IPv4 takes for the first five.
TRANSLATED = (
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::6464:64c8",
    "64:ff9b::a83f:8110",
    "64:ff9b::c000:c0",
    "2002:a9fe:a9fe::1",
)


def namespaced(address: str, namespace: str, labels: dict[str, str]) -> End:
    return End(address, namespace, labels, {"kubernetes.io/metadata.name": namespace})


class World:
    """A sampling's head and worker, the operator, and others."""

    def __init__(self, metadata: Metadata, spec: Spec, *, cloud_identity: bool = False) -> None:
        attempt = Attempt(
            *(metadata, 1, spec, plan(spec), "worker:1", "2.60.0"),
            shared_output=False,
            cloud_identity=cloud_identity,
        )
        self.policies: list[Any] = [network_policy(Templates(), attempt, "uid", OPERATOR)]
        # KubeRay gives every pod of a cluster this label.
        labels = {**attempt.labels, "ray.io/cluster": attempt.name}
        self.head = namespaced("10.0.0.1", metadata.namespace, labels | {"ray.io/node-type": "head"})
        self.worker = namespaced("10.0.0.2", metadata.namespace, labels | {"ray.io/node-type": "worker"})
        self.operator = namespaced("10.0.0.3", OPERATOR.namespace, {**OPERATOR.labels})

    def open_to(self, source: End, *ports: int) -> list[int]:
        return [port for port in ports if reaches(self.policies, source, self.head, port)]


@pytest.fixture
def world(metadata: Metadata, make_spec: MakeSpec) -> World:
    return World(metadata, make_spec())


def test_the_operator_reaches_jobs_and_progress_and_nothing_else(world: World) -> None:
    assert world.open_to(world.operator, *RAY_PORTS, 8500) == [8265, 8500]


def test_rays_pods_reach_each_other_on_every_port(world: World) -> None:
    for source, target in ((world.head, world.worker), (world.worker, world.head)):
        assert all(reaches(world.policies, source, target, port) for port in RAY_PORTS)


@pytest.mark.parametrize("namespace", ["neighbour", "research"])
@pytest.mark.parametrize("labels", [{}, dict(OPERATOR.labels)], ids=["any pod", "one with the operator's labels"])
def test_nobody_else_reaches_anything(world: World, namespace: str, labels: dict[str, str]) -> None:
    assert world.open_to(namespaced("10.0.0.9", namespace, labels), *RAY_PORTS, 8500) == []


def test_a_pod_of_another_namespace_with_the_clusters_own_labels_reaches_nothing(world: World) -> None:
    impostor = namespaced("10.0.0.9", "neighbour", dict(world.worker.labels))
    assert world.open_to(impostor, *RAY_PORTS, 8500) == []
    assert not reaches(world.policies, world.head, impostor, 443)


def test_the_operators_namespace_alone_opens_nothing(world: World) -> None:
    assert world.open_to(replace(world.operator, labels={"app": "other"}), *RAY_PORTS, 8500) == []


def test_an_address_outside_reaches_nothing(world: World) -> None:
    assert world.open_to(End("203.0.113.7"), *RAY_PORTS, 8500) == []


def test_a_sampling_that_needs_nobody_reaches_nobody_but_the_dns(world: World) -> None:
    outside, other = End("203.0.113.7"), namespaced("10.0.0.9", "neighbour", {})
    assert not reaches(world.policies, world.head, outside, 443)
    assert not reaches(world.policies, world.head, other, 9000)
    assert reaches(world.policies, world.head, other, 53, "UDP")


@pytest.mark.parametrize("address", METADATA_SERVICES + TRANSLATED)
def test_a_metadata_service_is_reached_only_for_a_bucket_without_credentials_where_that_is_allowed(
    metadata: Metadata, make_spec: MakeSpec, address: str
) -> None:
    for fields, open_to_it in (
        ({}, False),
        ({"model": {"uri": "https://example.com/m.safetensors"}}, False),
        (WITH_CREDENTIALS, False),
        (IN_A_BUCKET, True),
    ):
        closed = World(metadata, make_spec(**fields))
        assert not reaches(closed.policies, closed.head, End(address), 80)
        world = World(metadata, make_spec(**fields), cloud_identity=True)
        assert reaches(world.policies, world.head, End(address), 80) is open_to_it
        assert reaches(world.policies, world.head, End("203.0.113.7"), 443) is bool(fields)


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
def test_selectors_are_read_as_kubernetes_reads_them(selector: dict[str, Any], selected: bool) -> None:
    assert matches(selector, {"a": "1"}) is selected


def test_a_policy_of_another_namespace_selects_nothing_here_and_an_unknown_field_is_no_answer() -> None:
    pod, other = namespaced("10.0.0.1", "a", {}), namespaced("10.0.0.2", "b", {})
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert reaches([{"metadata": {"namespace": "b"}, "spec": spec}], other, pod, 80)
    assert not reaches([{"metadata": {"namespace": "a"}, "spec": spec}], other, pod, 80)
    with pytest.raises(AssertionError, match="'ingres'"):
        reaches([{"metadata": {"namespace": "a"}, "spec": {**spec, "ingres": []}}], other, pod, 80)
