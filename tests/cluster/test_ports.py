"""Security of a running sampling: responses of its ports, network policies, secrets that must not be readable."""

from __future__ import annotations

import base64
import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm_operator.controller.metrics import PORT as METRICS
from ddpm_operator.manifests.tokens import attempt_tokens
from tests.cluster.kube import Cluster, Manifest, Namespace, has_condition
from tests.cluster.manifests import pod, secret
from tests.cluster.metrics import metrics_text
from tests.cluster.operator_release import SELECTOR, Operator
from tests.cluster.ray_api import RayApi
from tests.cluster.results import run_python
from tests.cluster.running import Running
from tests.cluster.samplings import LIGHT, SMALL, Sampling
from tests.support.policies import Endpoint, reaches

INTRUDER = (Path(__file__).parent / "intruder.py").read_text()
TIMEOUT = 180.0
NAME = "kubernetes.io/metadata.name"
KNOWN = {"head": {6379, 8080, 8265, 8500, 10001, 52365}, "worker": {8080, 52365}}

# What Ray 2.60 serves without a token: the login page, health, and metrics. The dashboard also accepts requests for an
# agent's health, and responds with 404.
DASHBOARD_PATHS = ("/", "/favicon.ico", "/static/…", "/api/authentication_mode", "/api/gcs_healthz")
AGENT_PATHS = ("/api/healthz", "/api/local_raylet_healthz")
PUBLIC = {
    *(("head", 8265, f"GET {path}", "200") for path in DASHBOARD_PATHS),
    *(("head", 8265, f"GET {path}", "404") for path in AGENT_PATHS),
    *((role, 52365, f"GET {path}", "200") for role in ("head", "worker") for path in AGENT_PATHS),
    *((role, port, "GET *", "200") for role, port in (("head", 8080), ("worker", 8080), ("head", 44227))),
}
HARMLESS = ["GET /api/version", "GET /api/jobs/", "/ray.rpc.NodeInfoGcsService/CheckAlive"]

READ_STORED = """
import pathlib
for path in pathlib.Path("/out").rglob("*"):
    if path.suffix in (".json", ".log"):
        print(path, path.read_text(errors="replace"))
"""
# What Ray serves with a token.
LISTINGS = (
    *("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/api/v0/tasks/summarize"),
    *(f"/api/v0/{what}?detail=1" for what in ("jobs", "workers", "actors", "tasks", "nodes", "runtime_envs")),
)


Answers = set[tuple[str, int, str, str]]


def intrude(running: Running, namespace: Namespace, image: str, **asked: Any) -> Answers:  # noqa: ANN401 - as JSON has it
    """Runs the intruder in a pod; returns (role, port, request, status) of all responses; no response has a secret."""
    by_address = {address: running.ports[role] for address, role in running.addresses.items()}
    argument = {"ports": by_address, "secrets": running.planted, "only": [], **asked}
    name = f"intruder-{secrets.token_hex(3)}"
    output = namespace.run_pod(pod(name, image, ["python", "-c", INTRUDER, json.dumps(argument)]), TIMEOUT)
    namespace.cluster.core.delete_namespaced_pod(name, namespace.name)
    report = json.loads(output)
    assert report["unknown"] == [], "these ports speak neither HTTP nor gRPC, so they were not probed"
    assert [it for it in report["answers"] if it[-1]] == [], "a response contains a secret"
    return {(running.addresses[address], port, what, status) for address, port, _, what, status, _ in report["answers"]}


def test_every_listening_port_is_known(running: Running) -> None:
    for role, known in KNOWN.items():
        assert known <= set(running.ports[role])
        assert len(running.ports[role]) > len(known), "the raylet's own ports are missing"


@pytest.mark.parametrize("where", ["another namespace", "its own namespace"])
def test_without_a_token_only_public_paths_respond(
    running: Running, namespace: Namespace, worker_image: str, where: str
) -> None:
    source = namespace if where == "another namespace" else running.namespace
    tokens = {"none": None, "wrong": secrets.token_hex(32)}
    assert intrude(running, source, worker_image, tokens=tokens) == PUBLIC


def test_the_drivers_token_opens_only_the_drivers_port(running: Running, worker_image: str) -> None:
    tokens = {"the driver's": running.tokens["progress_token"]}
    responses = intrude(running, running.namespace, worker_image, tokens=tokens)
    driver_responses = {it for it in responses if it[:2] == ("head", 8500)}
    assert responses - driver_responses == PUBLIC
    assert {what for _, _, what, status in driver_responses if status == "200"} - {"GET /grid.png"} == {"GET /progress"}


def test_with_the_token_requests_are_accepted(running: Running, namespace: Namespace, worker_image: str) -> None:
    right = {"right": running.tokens["auth_token"]}
    responses = intrude(running, namespace, worker_image, tokens=right, only=HARMLESS)
    assert {
        *(("head", 8265, it, "200") for it in HARMLESS[:2]),
        ("head", 6379, HARMLESS[2], "OK"),
    } <= responses


def end_of(cluster: Cluster, pod: Manifest, **changed: str) -> Endpoint:
    metadata = pod["metadata"] | changed
    of_namespace = cluster.core.read_namespace(metadata["namespace"]).metadata.labels
    return Endpoint(pod["status"]["podIP"], metadata["namespace"], metadata["labels"], of_namespace)


def test_policies_admit_only_the_operator_and_the_clusters_pods(
    running: Running, operator: Operator, namespace: Namespace
) -> None:
    """Evaluates the policies in this test, because the network of hack/node enforces none."""
    cluster = operator.cluster
    policies = cluster.resource("networking.k8s.io/v1", "NetworkPolicy").get().to_dict()["items"]
    ends = {role: end_of(cluster, pod) for role, pod in running.pods.items()}
    (operator_end,) = [end_of(cluster, it) for it in operator.namespace.list("v1", "Pod", SELECTOR)]
    # A pod with all labels of a head, in another namespace.
    neighbour = end_of(cluster, running.pods["head"], namespace=namespace.name)
    outside, metadata_service = Endpoint("203.0.113.7"), Endpoint("169.254.169.254")

    def open_ports(source: Endpoint, role: str) -> set[int]:
        return {port for port in running.ports[role] if reaches(policies, source, ends[role], port)}

    for role in ends:
        assert open_ports(neighbour, role) == open_ports(outside, role) == set()
        assert not reaches(policies, ends[role], metadata_service, 80)
        assert not reaches(policies, ends[role], neighbour, 443)
    assert open_ports(operator_end, "head") == {8265, 8500}
    assert open_ports(ends["worker"], "head") == set(running.ports["head"])
    assert open_ports(ends["head"], "worker") == set(running.ports["worker"])

    strangers = (*ends.values(), neighbour, outside, Endpoint("10.9.9.9", "monitoring", {}, {NAME: "monitoring"}))
    assert not any(reaches(policies, it, operator_end, port) for it in strangers for port in (8080, METRICS))
    assert not reaches(policies, operator_end, metadata_service, 80)
    assert not reaches(policies, operator_end, neighbour, 80)


def test_secrets_are_not_readable_anywhere(running: Running, operator: Operator) -> None:
    namespace = running.namespace
    texts = readable(namespace, operator)
    cluster = running.pods["head"]["metadata"]["labels"]["ray.io/cluster"]
    with namespace.port_forward(f"service/{cluster}-head-svc", ":8265") as ports:
        ray = RayApi(ports[8265], running.tokens["auth_token"])
        texts |= {path: ray.text(path) for path in LISTINGS}
    for role, one in running.pods.items():
        shell = ["exec", one["metadata"]["name"], "--namespace", namespace.name, "--", "sh", "-c"]
        texts[f"Ray's logs of the {role}"] = operator.run_kubectl(*shell, "cat /tmp/ray/session_*/logs/*.*")

    assert [name for name, text in texts.items() if any(it in text for it in running.planted)] == []
    must_be_present = ("/api/jobs/", "Event", "DDPMSampling", "Ray's logs of the head", "/metrics")
    assert all("ddpm" in texts[name] for name in must_be_present)


def test_a_namespace_can_be_deleted_during_sampling(running: Running) -> None:
    """Runs last of the tests that share the running sampling."""
    assert has_condition("Running")(running.sampling.get())
    running.delete_namespace()
    running.namespace.cluster.wait_for_namespaces_to_go()


def test_storage_failures_contain_no_credentials(namespace: Namespace, operator: Operator) -> None:
    marker = f"planted-{secrets.token_hex(12)}"
    values = {
        "AWS_ENDPOINT_URL": f"http://me:{marker}@127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "unknown",
        "AWS_SECRET_ACCESS_KEY": marker,
        "AWS_SESSION_TOKEN": marker,
    }
    namespace.apply(secret("s3", values))
    storage = {"output": {"uri": "s3://bucket/digits"}, "credentialsSecretRef": {"name": "s3"}, "backoffLimit": 0}
    failed = Sampling.apply(namespace, "digits", LIGHT | storage).wait_for("Failed", TIMEOUT)
    assert failed["status"]["failure"]["reason"] == "StorageFailed"
    assert [name for name, text in readable(namespace, operator).items() if marker in text] == []


@pytest.mark.long
def test_stored_documents_contain_no_credentials(namespace: Namespace, operator: Operator, worker_image: str) -> None:
    marker = f"planted-{secrets.token_hex(12)}"
    namespace.apply(secret("s3", {"AWS_SECRET_ACCESS_KEY": marker}))
    sampling = Sampling.apply(namespace, "digits", SMALL | {"credentialsSecretRef": {"name": "s3"}})
    uid = sampling.wait_until_complete(16)["metadata"]["uid"]
    (key,) = operator.namespace.get("v1", "Secret", f"{operator.release}-operator-key")["data"].values()
    tokens = attempt_tokens(base64.b64decode(key), uid, 1)
    planted = (marker, key, tokens.ray, tokens.progress)

    stored = run_python(namespace, worker_image, READ_STORED, claim="digits-output")
    assert {"/out/job.json", "/out/manifest.json"} < set(stored)
    assert any(re.fullmatch(r"/out/logs/.+\.log", word) for word in stored)
    texts = readable(namespace, operator) | {"stored documents": " ".join(stored)}
    assert [name for name, text in texts.items() if any(it in text for it in planted)] == []


def readable(namespace: Namespace, operator: Operator) -> dict[str, str]:
    """Returns description -> text of everything that readers of the namespace or of the operator can see."""
    texts = {"/metrics": metrics_text(operator)}
    for each in (namespace, operator.namespace):
        for one in each.list("v1", "Pod"):
            for container in [*one["spec"].get("initContainers", ()), *one["spec"]["containers"]]:
                name = f"log of {one['metadata']['name']} {container['name']}"
                texts[name] = each.logs(one["metadata"]["name"], container["name"])
    kinds = [
        *(("v1", kind) for kind in ("Pod", "Service", "ConfigMap", "Event", "PersistentVolumeClaim")),
        ("ray.io/v1", "RayCluster"),
        ("ddpm-ray.io/v1alpha1", "DDPMSampling"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    ]
    return texts | {kind: yaml.safe_dump(namespace.list(api, kind)) for api, kind in kinds}
