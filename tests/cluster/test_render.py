"""The rendered manifests on a real API server: every field is known, and every pod is admitted."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException

from ddpm_operator.api import Claim, DDPMSampling, Metadata
from ddpm_operator.manifests.render import (
    Attempt,
    OperatorPods,
    network_policy,
    output_claim,
    ray_cluster,
    token_secret,
)
from ddpm_operator.manifests.templating import Manifest, Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.planning.sizing import plan
from tests.cluster.kube import Cluster, Namespace
from tests.cluster.manifests import RAY_VERSION
from tests.support.subset import is_subset

pytestmark = [pytest.mark.xdist_group("render"), pytest.mark.no_operator, pytest.mark.draws_nothing]

ROOT = Path(__file__).parents[2]
TEMPLATES = Templates()
OPERATOR = OperatorPods("ddpm-system", {"app.kubernetes.io/name": "ddpm-operator"})
TOKENS = Tokens(ray="a-token-of-the-test", progress="another-token", suffix="suffix")
UID = "0e2f7b1c-9c4e-4a57-8d7e-5b1f6c2d3e4f"
REFERENCES = ("serviceAccountName", "priorityClassName", "runtimeClassName")


def samplings() -> list[DDPMSampling]:
    accepted = ROOT / "tests/fixtures/samplings" / "accepted.yaml"
    texts = [path.read_text() for path in (accepted, ROOT / "examples" / "digits.yaml", ROOT / "examples" / "gpu.yaml")]
    return [DDPMSampling.from_document(document) for text in texts for document in yaml.safe_load_all(text)]


def attempt_of(sampling: DDPMSampling, namespace: Namespace, image: str = "worker:1") -> Attempt:
    metadata = Metadata(name=sampling.metadata.name, namespace=namespace.name, uid=UID)
    shared = "ReadWriteMany" in (sampling.spec.output.claim or Claim()).access_modes
    chosen = plan(sampling.spec)
    return Attempt(metadata, 1, sampling.spec, chosen, image, RAY_VERSION, shared_output=shared)


def try_to_create(namespace: Namespace, manifest: Manifest) -> dict[str, Any]:
    """Creates an object in a dry run; unknown fields are an error."""
    resource = namespace.cluster.resource(str(manifest["apiVersion"]), str(manifest["kind"]))
    created = resource.create(
        body=manifest, namespace=namespace.name, query_params=[("dryRun", "All"), ("fieldValidation", "Strict")]
    )
    found: dict[str, Any] = created.to_dict()
    return found


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace for dry runs."""
    with cluster.namespace(f"ddpm-render-{secrets.token_hex(4)}") as namespace:
        yield namespace


@pytest.mark.parametrize("sampling", samplings(), ids=lambda sampling: sampling.metadata.name)
def test_the_api_server_knows_and_keeps_every_field(shared: Namespace, sampling: DDPMSampling) -> None:
    attempt = attempt_of(sampling, shared)
    manifests = [
        ray_cluster(TEMPLATES, attempt, TOKENS.secret_name(attempt.name)),
        network_policy(TEMPLATES, attempt, UID, OPERATOR),
        token_secret(TEMPLATES, attempt, UID, TOKENS),
    ]
    claim = output_claim(TEMPLATES, attempt.sampling, attempt.spec)
    for manifest in [*manifests, claim] if claim else manifests:
        created = try_to_create(shared, manifest)
        if manifest["kind"] == "RayCluster":
            assert is_subset(manifest["spec"], created["spec"])


@pytest.mark.parametrize("sampling", samplings(), ids=lambda sampling: sampling.metadata.name)
def test_a_restricted_namespace_admits_every_pod(shared: Namespace, sampling: DDPMSampling) -> None:
    cluster: Any = ray_cluster(TEMPLATES, attempt_of(sampling, shared), "secret")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        spec = {key: value for key, value in group["template"]["spec"].items() if key not in REFERENCES}
        metadata = {**group["template"]["metadata"], "name": "ray"}
        created = try_to_create(shared, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        assert created["spec"]["automountServiceAccountToken"] is False


def test_an_unknown_raycluster_field_is_an_error(shared: Namespace) -> None:
    cluster: Any = ray_cluster(TEMPLATES, attempt_of(samplings()[0], shared), "secret")
    cluster["spec"]["authOptions"]["yetToCome"] = True
    with pytest.raises(ApiException) as caught:
        try_to_create(shared, cluster)
    assert "unknown field" in str(caught.value.body)
    assert "spec.authOptions.yetToCome" in str(caught.value.body)
