"""A running sampling as strangers find it: what ports answer, whom policies let in, where secrets stand."""

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
from tests.support.policies import End, reaches

INTRUDER = (Path(__file__).parent / "intruder.py").read_text()
WITHIN = 180.0
NAME = "kubernetes.io/metadata.name"
KNOWN = {"head": {6379, 8080, 8265, 8500, 10001, 52365}, "worker": {8080, 52365}}

# All that Ray 2.60 answers without a token: a page that asks for one, whether it is well, and figures. The
# dashboard lets anyone ask for an agent's health, too, and then knows nothing of it.
OF_DASHBOARD = ("/", "/favicon.ico", "/static/…", "/api/authentication_mode", "/api/gcs_healthz")
OF_AGENT = ("/api/healthz", "/api/local_raylet_healthz")
PUBLIC = {
    *(("head", 8265, f"GET {path}", "200") for path in OF_DASHBOARD),
    *(("head", 8265, f"GET {path}", "404") for path in OF_AGENT),
    *((role, 52365, f"GET {path}", "200") for role in ("head", "worker") for path in OF_AGENT),
    *((role, port, "GET *", "200") for role, port in (("head", 8080), ("worker", 8080), ("head", 44227))),
}
HARMLESS = ["GET /api/version", "GET /api/jobs/", "/ray.rpc.NodeInfoGcsService/CheckAlive"]

READ_KEPT = """
import pathlib
for path in pathlib.Path("/out").rglob("*"):
    if path.suffix in (".json", ".log"):
        print(path, path.read_text(errors="replace"))
"""
# What Ray tells of itself to those who may ask.
LISTINGS = (
    *("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/api/v0/tasks/summarize"),
    *(f"/api/v0/{what}?detail=1" for what in ("jobs", "workers", "actors", "tasks", "nodes", "runtime_envs")),
)


Answers = set[tuple[str, int, str, str]]


def intrude(running: Running, namespace: Namespace, image: str, **asked: Any) -> Answers:  # noqa: ANN401 - as JSON has it
    """(role, port, what, status) of all that was answered to a pod of some namespace; no answer holds a secret."""
    by_address = {address: running.ports[role] for address, role in running.addresses.items()}
    asking = {"ports": by_address, "secrets": running.planted, "only": [], **asked}
    name = f"intruder-{secrets.token_hex(3)}"
    said = namespace.run_pod(pod(name, image, ["python", "-c", INTRUDER, json.dumps(asking)]), WITHIN)
    namespace.cluster.core.delete_namespaced_pod(name, namespace.name)
    heard = json.loads(said)
    assert heard["strange"] == [], "these ports speak what the intruder does not, so nothing was asked there"
    assert [it for it in heard["answers"] if it[-1]] == [], "an answer holds a secret"
    return {(running.addresses[address], port, what, status) for address, port, _, what, status, _ in heard["answers"]}


def test_every_port_of_every_pod_is_known_and_asked(running: Running) -> None:
    for role, known in KNOWN.items():
        assert known <= set(running.ports[role])
        assert len(running.ports[role]) > len(known), "the raylet's own ports are missing"


@pytest.mark.parametrize("place", ["another namespace", "its own namespace"])
def test_without_the_token_nothing_is_answered_but_what_is_public(
    running: Running, namespace: Namespace, worker_image: str, place: str
) -> None:
    where = namespace if place == "another namespace" else running.namespace
    tokens = {"none": None, "wrong": secrets.token_hex(32)}
    assert intrude(running, where, worker_image, tokens=tokens) == PUBLIC


def test_the_drivers_token_opens_the_drivers_port_and_no_other(running: Running, worker_image: str) -> None:
    tokens = {"the driver's": running.tokens["progress_token"]}
    got = intrude(running, running.namespace, worker_image, tokens=tokens)
    of_driver = {it for it in got if it[:2] == ("head", 8500)}
    assert got - of_driver == PUBLIC
    assert {what for _, _, what, status in of_driver if status == "200"} - {"GET /grid.png"} == {"GET /progress"}


def test_with_the_token_the_same_program_is_answered(running: Running, namespace: Namespace, worker_image: str) -> None:
    right = {"right": running.tokens["auth_token"]}
    got = intrude(running, namespace, worker_image, tokens=right, only=HARMLESS)
    assert {
        *(("head", 8265, it, "200") for it in HARMLESS[:2]),
        ("head", 6379, HARMLESS[2], "OK"),
    } <= got


def end_of(cluster: Cluster, pod: Manifest, **changed: str) -> End:
    metadata = pod["metadata"] | changed
    of_namespace = cluster.core.read_namespace(metadata["namespace"]).metadata.labels
    return End(pod["status"]["podIP"], metadata["namespace"], metadata["labels"], of_namespace)


def test_where_policies_are_enforced_only_the_operator_and_the_clusters_own_pods_come_in(
    running: Running, operator: Operator, namespace: Namespace
) -> None:
    """Computed from the policies, labels and ports that are there: the network of this cluster enforces none."""
    cluster = operator.cluster
    policies = cluster.resource("networking.k8s.io/v1", "NetworkPolicy").get().to_dict()["items"]
    ends = {role: end_of(cluster, pod) for role, pod in running.pods.items()}
    (of_operator,) = [end_of(cluster, it) for it in operator.namespace.list("v1", "Pod", SELECTOR)]
    # One that has taken on every label of a head, in the next namespace.
    neighbour = end_of(cluster, running.pods["head"], namespace=namespace.name)
    outside, metadata_service = End("203.0.113.7"), End("169.254.169.254")

    def open_ports(source: End, role: str) -> set[int]:
        return {port for port in running.ports[role] if reaches(policies, source, ends[role], port)}

    for role in ends:
        assert open_ports(neighbour, role) == open_ports(outside, role) == set()
        assert not reaches(policies, ends[role], metadata_service, 80)
        assert not reaches(policies, ends[role], neighbour, 443)
    assert open_ports(of_operator, "head") == {8265, 8500}
    assert open_ports(ends["worker"], "head") == set(running.ports["head"])
    assert open_ports(ends["head"], "worker") == set(running.ports["worker"])

    strangers = (*ends.values(), neighbour, outside, End("10.9.9.9", "monitoring", {}, {NAME: "monitoring"}))
    assert not any(reaches(policies, it, of_operator, port) for it in strangers for port in (8080, METRICS))
    assert not reaches(policies, of_operator, metadata_service, 80)
    assert not reaches(policies, of_operator, neighbour, 80)


def test_no_secret_stands_where_somebody_may_read_it(running: Running, operator: Operator) -> None:
    namespace = running.namespace
    texts = readable(namespace, operator)
    cluster = running.pods["head"]["metadata"]["labels"]["ray.io/cluster"]
    with namespace.port_forward(f"service/{cluster}-head-svc", ":8265") as ports:
        ray = RayApi(ports[8265], running.tokens["auth_token"])
        texts |= {path: ray.text(path) for path in LISTINGS}
    for role, one in running.pods.items():
        where = ["exec", one["metadata"]["name"], "--namespace", namespace.name, "--", "sh", "-c"]
        texts[f"Ray's logs of the {role}"] = operator.kubectl_says(*where, "cat /tmp/ray/session_*/logs/*.*")

    assert [name for name, text in texts.items() if any(it in text for it in running.planted)] == []
    told = ("/api/jobs/", "Event", "DDPMSampling", "Ray's logs of the head", "/metrics")
    assert all("ddpm" in texts[name] for name in told)


def test_a_namespace_that_is_deleted_while_it_samples_goes(running: Running) -> None:
    """The last of those that look at what runs."""
    assert has_condition("Running")(running.sampling.now())
    running.delete_namespace()
    running.namespace.cluster.wait_for_namespaces_to_go()


def test_a_failure_of_storage_tells_no_credentials(namespace: Namespace, operator: Operator) -> None:
    marker = f"planted-{secrets.token_hex(12)}"
    values = {
        "AWS_ENDPOINT_URL": f"http://me:{marker}@127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": marker,
        "AWS_SESSION_TOKEN": marker,
    }
    namespace.apply(secret("s3", values))
    place = {"output": {"uri": "s3://bucket/digits"}, "credentialsSecretRef": {"name": "s3"}, "backoffLimit": 0}
    failed = Sampling.apply(namespace, "digits", LIGHT | place).wait_for("Failed", WITHIN)
    assert failed["status"]["failure"]["reason"] == "StorageFailed"
    assert [name for name, text in readable(namespace, operator).items() if marker in text] == []


@pytest.mark.long
def test_what_is_kept_beside_the_samples_tells_no_credentials(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    marker = f"planted-{secrets.token_hex(12)}"
    namespace.apply(secret("s3", {"AWS_SECRET_ACCESS_KEY": marker}))
    sampling = Sampling.apply(namespace, "digits", SMALL | {"credentialsSecretRef": {"name": "s3"}})
    uid = sampling.wait_until_complete(16)["metadata"]["uid"]
    (key,) = operator.namespace.get("v1", "Secret", f"{operator.release}-operator-key")["data"].values()
    tokens = attempt_tokens(base64.b64decode(key), uid, 1)
    planted = (marker, key, tokens.ray, tokens.progress)

    kept = run_python(namespace, worker_image, READ_KEPT, claim="digits-output")
    assert {"/out/job.json", "/out/manifest.json"} < set(kept)
    assert any(re.fullmatch(r"/out/logs/.+\.log", word) for word in kept)
    texts = readable(namespace, operator) | {"what is kept": " ".join(kept)}
    assert [name for name, text in texts.items() if any(it in text for it in planted)] == []


def readable(namespace: Namespace, operator: Operator) -> dict[str, str]:
    """All that is there for readers of a namespace, the operator's log and metrics, by what it is."""
    texts = {"/metrics": metrics_text(operator)}
    for place in (namespace, operator.namespace):
        for one in place.list("v1", "Pod"):
            for container in [*one["spec"].get("initContainers", ()), *one["spec"]["containers"]]:
                name = f"log of {one['metadata']['name']} {container['name']}"
                texts[name] = place.logs(one["metadata"]["name"], container["name"])
    kinds = [
        *(("v1", kind) for kind in ("Pod", "Service", "ConfigMap", "Event", "PersistentVolumeClaim")),
        ("ray.io/v1", "RayCluster"),
        ("ddpm-ray.io/v1alpha1", "DDPMSampling"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    ]
    return texts | {kind: yaml.safe_dump(namespace.list(api, kind)) for api, kind in kinds}
