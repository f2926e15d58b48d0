"""The rendered manifests on a real cluster: every field is known, every pod may start, a RayCluster does."""

from __future__ import annotations

import json
import operator
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from ddpm_operator.api import KIND, Claim, DDPMSampling, Metadata
from ddpm_operator.job import job_document
from ddpm_operator.render import Attempt, OperatorPods, network_policy, output_claim, ray_cluster, token_secret
from ddpm_operator.sizing import plan
from ddpm_operator.templating import Manifest, Templates
from ddpm_operator.tokens import Tokens
from tests.cluster.crd import install_crd
from tests.cluster.kube import Cluster, Namespace, has_condition
from tests.cluster.manifests import RAY_VERSION, pod
from tests.cluster.ray_api import RayApi
from tests.within import within

ROOT = Path(__file__).parents[2]
TEMPLATES = Templates()
OPERATOR = OperatorPods("ddpm-system", {"app.kubernetes.io/name": "ddpm-operator"})
TOKENS = Tokens(ray="a-token-of-the-test", progress="another-token")
UID = "0e2f7b1c-9c4e-4a57-8d7e-5b1f6c2d3e4f"
NAMED_ELSEWHERE = ("serviceAccountName", "priorityClassName", "runtimeClassName")


def samplings() -> list[DDPMSampling]:
    accepted = ROOT / "tests" / "unit" / "operator" / "samplings" / "accepted.yaml"
    texts = [
        path.read_text() for path in (accepted, ROOT / "examples" / "digits.yaml", ROOT / "examples" / "gpu.yaml")
    ]
    return [DDPMSampling.from_document(document) for text in texts for document in yaml.safe_load_all(text)]


def attempt_of(sampling: DDPMSampling, namespace: Namespace, image: str = "worker:1") -> Attempt:
    metadata = Metadata(name=sampling.metadata.name, namespace=namespace.name, uid=UID)
    shared = "ReadWriteMany" in (sampling.spec.output.claim or Claim()).access_modes
    chosen = plan(sampling.spec)
    return Attempt(metadata, 1, sampling.spec, chosen, image, RAY_VERSION, shared_output=shared)


def try_to_create(namespace: Namespace, manifest: Manifest) -> dict[str, Any]:
    """A dry run of what the operator does; a field that the API does not know is an error."""
    resource = namespace.cluster.resource(str(manifest["apiVersion"]), str(manifest["kind"]))
    created = resource.create(
        body=manifest, namespace=namespace.name, query_params=[("dryRun", "All"), ("fieldValidation", "Strict")]
    )
    found: dict[str, Any] = created.to_dict()
    return found


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for tests that leave nothing in it."""
    with cluster.namespace(f"ddpm-render-{secrets.token_hex(4)}") as namespace:
        yield namespace


@pytest.mark.parametrize("sampling", samplings(), ids=lambda sampling: sampling.metadata.name)
def test_the_api_server_knows_every_field_and_keeps_it(shared: Namespace, sampling: DDPMSampling) -> None:
    attempt = attempt_of(sampling, shared)
    made = [
        ray_cluster(TEMPLATES, attempt),
        network_policy(TEMPLATES, attempt, UID, OPERATOR),
        token_secret(TEMPLATES, attempt, UID, TOKENS),
    ]
    claim = output_claim(TEMPLATES, attempt.sampling, attempt.spec)
    for manifest in [*made, claim] if claim else made:
        created = try_to_create(shared, manifest)
        if manifest["kind"] == "RayCluster":
            assert within(manifest["spec"], created["spec"])


@pytest.mark.parametrize("sampling", samplings(), ids=lambda sampling: sampling.metadata.name)
def test_a_restricted_namespace_takes_every_pod(shared: Namespace, sampling: DDPMSampling) -> None:
    cluster: Any = ray_cluster(TEMPLATES, attempt_of(sampling, shared))
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        spec = {key: value for key, value in group["template"]["spec"].items() if key not in NAMED_ELSEWHERE}
        metadata = {**group["template"]["metadata"], "name": "ray"}
        created = try_to_create(shared, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        assert created["spec"]["automountServiceAccountToken"] is False


def test_a_field_that_kuberay_does_not_know_is_an_error(shared: Namespace) -> None:
    cluster: Any = ray_cluster(TEMPLATES, attempt_of(samplings()[0], shared))
    cluster["spec"]["authOptions"]["yetToCome"] = True
    with pytest.raises(ApiException) as caught:
        try_to_create(shared, cluster)
    assert "unknown field" in str(caught.value.body)
    assert "spec.authOptions.yetToCome" in str(caught.value.body)


@pytest.fixture
def sampling(cluster: Cluster, namespace: Namespace) -> DDPMSampling:
    """A small sampling that the API server has; no operator looks after it."""
    install_crd(cluster)
    head, worker = {"cpu": "1", "memory": "2Gi"}, {"cpu": "500m", "memory": "2Gi"}
    spec = {
        "model": {"uri": "builtin://mnist"},
        "samples": 40,
        "sampler": {"name": "dpmpp", "steps": 5},
        "resources": {"worker": worker, "head": head},
        "output": {"claim": {"size": "1Gi", "retentionPolicy": "Delete"}},
    }
    resource = {"apiVersion": "ddpm-ray.io/v1alpha1", "kind": KIND, "metadata": {"name": "digits"}, "spec": spec}
    namespace.apply(resource)
    return DDPMSampling.from_document(namespace.get("ddpm-ray.io/v1alpha1", KIND, "digits"))


@pytest.mark.parametrize(("workers", "secret_comes_late"), [(0, True), (1, False)])
def test_a_cluster_starts_samples_and_goes_with_its_sampling(
    namespace: Namespace, worker_image: str, sampling: DDPMSampling, workers: int, secret_comes_late: bool
) -> None:
    chosen = plan(sampling.spec).model_copy(update={"workers": workers})
    attempt = Attempt(sampling.metadata, 1, sampling.spec, chosen, worker_image, RAY_VERSION, shared_output=False)
    claim = output_claim(TEMPLATES, sampling.metadata, sampling.spec)
    assert claim
    namespace.apply(claim, ray_cluster(TEMPLATES, attempt))
    uid = namespace.get("ray.io/v1", "RayCluster", attempt.name)["metadata"]["uid"]
    (head,) = wait_for_pods(namespace, attempt, "head")
    if secret_comes_late:
        namespace.wait("v1", "Pod", head, waits_for_its_secret, 60, "the head to wait for its token")

    namespace.apply(
        network_policy(TEMPLATES, attempt, uid, OPERATOR), token_secret(TEMPLATES, attempt, uid, TOKENS)
    )
    namespace.wait(
        "ray.io/v1",
        "RayCluster",
        attempt.name,
        has_condition("RayClusterProvisioned"),
        180,
        "the cluster to be ready",
    )
    assert len(wait_for_pods(namespace, attempt, "worker", workers)) == workers
    with namespace.port_forward(f"pod/{head}", ":8265") as ports:
        job = {"DDPM_JOB": json.dumps(job_document(attempt))}
        RayApi(ports[8265], TOKENS.ray).run_job("ddpm-sample --quiet", job, seconds=180)
        assert RayApi(ports[8265], token=None).status_of("/api/jobs/") == 401
    reader = pod("reader", worker_image, ["ls", "/out/shards"], claim="digits-output")
    assert namespace.run_pod(reader, 60).split() == ["000000000-000000031.npz", "000000032-000000039.npz"]

    namespace.cluster.core.delete_namespaced_pod("reader", namespace.name)
    namespace.cluster.resource("ddpm-ray.io/v1alpha1", KIND).delete(name="digits", namespace=namespace.name)
    for kind, name in (("Secret", attempt.name), ("PersistentVolumeClaim", "digits-output"), ("Pod", head)):
        namespace.wait("v1", kind, name, operator.not_, 60, f"{kind} {name} to be gone")
    policy = ("networking.k8s.io/v1", "NetworkPolicy", attempt.name)
    namespace.wait(*policy, operator.not_, 60, "the policy to be gone")


def wait_for_pods(namespace: Namespace, attempt: Attempt, role: str, number: int = 1) -> list[str]:
    """Names of the attempt's pods of one role, once KubeRay has made them."""
    selector = f"ray.io/cluster={attempt.name},ray.io/node-type={role}"
    deadline = time.monotonic() + 60
    while len(found := namespace.list("v1", "Pod", selector)) < number and time.monotonic() < deadline:
        time.sleep(0.2)
    return [one["metadata"]["name"] for one in found]


def waits_for_its_secret(seen: dict[str, Any]) -> bool:
    containers = seen.get("status", {}).get("containerStatuses", ())
    return [one["state"].get("waiting", {}).get("reason") for one in containers] == ["CreateContainerConfigError"]
