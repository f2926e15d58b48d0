"""Generated DDPMSamplings: the API server refuses them with a message, or the operator decides on them."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kubernetes.client import ApiException

from ddpm_operator.api import ConditionType, DDPMSampling
from ddpm_operator.manifests.render import OperatorPods, network_policy, output_claim, ray_cluster, token_secret
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import attempt_tokens
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.reconcile.actions import CreateCluster, WriteStatus
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.reconcile import reconcile
from tests.cluster.kube import Cluster, Manifest, Namespace, has_condition
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, KIND, LIGHT, assert_nothing_left
from tests.support.hostile import MAX_EXAMPLES, specs

# How many are stored; the operator's decisions take longer than dry runs.
STORED = max(MAX_EXAMPLES // 10, 24)
# Valid, but impossible: they fail with a reason.
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "no-account": LIGHT | {"podOverrides": {"serviceAccountName": "default"}},
    "no-claim": LIGHT | {"output": {"uri": "pvc://not-there/digits"}},
    "no-class": LIGHT | {"podOverrides": {"priorityClassName": "system-node-critical"}},
}
DECISION_TIMEOUT = 180.0

TEMPLATES, OPERATOR = Templates(), OperatorPods("ddpm-ray", {"app": "operator"})
REFUSAL_CODES = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
UID = "00000000-0000-0000-0000-000000000000"

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace(f"ddpm-hostile-{secrets.token_hex(4)}") as namespace:
        yield namespace


def try_create(namespace: Namespace, manifest: Any, *, dry: bool = True) -> Manifest | None:  # noqa: ANN401 - as YAML has it
    """Returns the created object; None if the API server refuses it with a message. Other errors fail the test."""
    resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
    query = [("fieldValidation", "Strict"), *([("dryRun", "All")] if dry else [])]
    try:
        created: Manifest = resource.create(body=manifest, namespace=namespace.name, query_params=query).to_dict()
    except ApiException as error:
        refused = error
    else:
        return created
    assert refused.status in REFUSAL_CODES, refused
    assert json.loads(str(refused.body))["message"]
    return None


def test_generated_samplings_are_rejected_or_render_valid_objects(shared: Namespace) -> None:
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=MAX_EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(specs())
    def check(spec: dict[str, Any]) -> None:
        outcomes[outcome_of(shared, spec)] += 1

    check()
    print(dict(outcomes))
    assert sum(outcomes.values()) >= MAX_EXAMPLES
    assert min(outcomes["refused by the API server"], outcomes["planned"]) > MAX_EXAMPLES / 10


def create(namespace: Namespace, name: str, spec: dict[str, Any]) -> bool:
    """Creates it; returns whether the API server accepted it."""
    manifest = {"apiVersion": API, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    return try_create(namespace, manifest, dry=False) is not None


def decided(seen: Manifest) -> bool:
    """Whether it is suspended, as its spec says, or has failed with a reason."""
    failed = has_condition("Failed")(seen) and bool(seen["status"]["failure"]["reason"])
    return failed or has_condition("Suspended")(seen)


@pytest.mark.operator_killed
def test_the_operator_decides_on_every_generated_sampling(namespace: Namespace, operator: Operator) -> None:
    before = operator.restarts()
    names = [name for name, spec in IMPOSSIBLE.items() if create(namespace, name, spec)]
    assert names == list(IMPOSSIBLE)

    @settings(
        max_examples=10 * STORED,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(specs())
    def store(spec: dict[str, Any]) -> None:
        name = f"hostile-{len(names)}"
        if len(names) < STORED and create(namespace, name, {**spec, "suspend": True}):
            names.append(name)

    store()
    assert len(names) == STORED
    found = namespace.wait_for_all(
        API, KIND, lambda all_: all(map(decided, all_)), DECISION_TIMEOUT, "a decision on each"
    )
    assert {it["metadata"]["name"] for it in found} == set(names)
    reasons = {it["metadata"]["name"]: it["status"]["failure"]["reason"] for it in found if "failure" in it["status"]}
    assert reasons == {"no-account": "InvalidSpec", "no-claim": "ReferenceNotFound", "no-class": "InvalidSpec"}
    assert operator.restarts() == before
    namespace.cluster.resource(API, KIND).delete(
        namespace=namespace.name, field_selector=f"metadata.namespace={namespace.name}"
    )
    namespace.wait_for_none(API, KIND, DECISION_TIMEOUT)
    assert_nothing_left(namespace)


def outcome_of(namespace: Namespace, spec: dict[str, Any]) -> str:
    head = {"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"}}
    taken = try_create(namespace, {**head, "spec": spec})
    if taken is None:
        return "refused by the API server"
    taken["metadata"] |= {"uid": UID, "resourceVersion": "1"}
    sampling = DDPMSampling.from_document(taken)
    decision = reconcile(Observed(sampling, WorkerImage("worker:1", "2.60.0")), datetime.now(UTC))
    created = [it.attempt for it in decision.actions if isinstance(it, CreateCluster)]
    for attempt in created:
        tokens = attempt_tokens(b"k" * 32, UID, attempt.number)
        made = [
            ray_cluster(TEMPLATES, attempt, tokens.secret_name(attempt.name)),
            network_policy(TEMPLATES, attempt, UID, OPERATOR),
            token_secret(TEMPLATES, attempt, UID, tokens),
            output_claim(TEMPLATES, attempt.sampling, attempt.spec),
        ]
        assert all(try_create(namespace, it) for it in made if it), made
    if created or sampling.spec.suspend:
        return "planned"
    (written,) = [it.status for it in decision.actions if isinstance(it, WriteStatus)]
    (accepted,) = [it for it in written.conditions if it.type == ConditionType.ACCEPTED]
    assert accepted.message
    return f"refused by the operator: {accepted.reason}"
