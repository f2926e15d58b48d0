"""Generated DDPMSamplings against the real API server, and what the operator makes of those that it takes."""

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
from tests.cluster.samplings import API, KIND, LIGHT, nothing_is_left
from tests.support.hostile import MAX_EXAMPLES, specs

# Of those that are stored; the operator's own answers to them take longer than dry runs.
STORED = max(MAX_EXAMPLES // 10, 24)
# Their form is right, and none of them can be done: their authors are told why.
IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "no-account": LIGHT | {"podOverrides": {"serviceAccountName": "default"}},
    "no-claim": LIGHT | {"output": {"uri": "pvc://not-there/digits"}},
    "no-class": LIGHT | {"podOverrides": {"priorityClassName": "system-node-critical"}},
}
ANSWERED_WITHIN = 180.0

TEMPLATES, OPERATOR = Templates(), OperatorPods("ddpm-ray", {"app": "operator"})
REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)
UID = "00000000-0000-0000-0000-000000000000"

pytestmark = pytest.mark.usefixtures("operator")


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Iterator[Namespace]:
    with cluster.namespace(f"ddpm-hostile-{secrets.token_hex(4)}") as namespace:
        yield namespace


def tried(namespace: Namespace, manifest: Any, *, dry: bool = True) -> Manifest | None:  # noqa: ANN401 - as YAML has it
    """What the API server makes of it; None if it is refused, with a sentence. Nothing else may come of it."""
    resource = namespace.cluster.resource(manifest["apiVersion"], manifest["kind"])
    query = [("fieldValidation", "Strict"), *([("dryRun", "All")] if dry else [])]
    try:
        taken: Manifest = resource.create(body=manifest, namespace=namespace.name, query_params=query).to_dict()
    except ApiException as error:
        refused = error
    else:
        return taken
    assert refused.status in REFUSALS, refused
    assert json.loads(str(refused.body))["message"]
    return None


def test_every_sampling_is_refused_with_a_sentence_or_all_that_is_made_for_it_is_taken(shared: Namespace) -> None:
    fates: Counter[str] = Counter()

    @settings(
        max_examples=MAX_EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(specs())
    def meet(spec: dict[str, Any]) -> None:
        fates[fate_of(shared, spec)] += 1

    meet()
    print(dict(fates))
    assert sum(fates.values()) >= MAX_EXAMPLES
    assert min(fates["refused by the API server"], fates["planned"]) > MAX_EXAMPLES / 10


def created(namespace: Namespace, name: str, spec: dict[str, Any]) -> bool:
    """Whether the API server takes it, for good."""
    manifest = {"apiVersion": API, "kind": KIND, "metadata": {"name": name}, "spec": spec}
    return tried(namespace, manifest, dry=False) is not None


def answered(seen: Manifest) -> bool:
    """It is suspended, as it asks for, or has failed with a reason."""
    failed = has_condition("Failed")(seen) and bool(seen["status"]["failure"]["reason"])
    return failed or has_condition("Suspended")(seen)


@pytest.mark.operator_killed
def test_an_operator_answers_every_sampling_that_is_stored_and_runs_on(
    namespace: Namespace, operator: Operator
) -> None:
    before = operator.restarts()
    names = [name for name, spec in IMPOSSIBLE.items() if created(namespace, name, spec)]
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
        if len(names) < STORED and created(namespace, name, {**spec, "suspend": True}):
            names.append(name)

    store()
    assert len(names) == STORED
    found = namespace.wait_for_all(
        API, KIND, lambda all_: all(map(answered, all_)), ANSWERED_WITHIN, "an answer to each"
    )
    assert {it["metadata"]["name"] for it in found} == set(names)
    reasons = {it["metadata"]["name"]: it["status"]["failure"]["reason"] for it in found if "failure" in it["status"]}
    assert reasons == {"no-account": "InvalidSpec", "no-claim": "ReferenceNotFound", "no-class": "InvalidSpec"}
    assert operator.restarts() == before
    namespace.cluster.resource(API, KIND).delete(
        namespace=namespace.name, field_selector=f"metadata.namespace={namespace.name}"
    )
    namespace.wait_for_none(API, KIND, ANSWERED_WITHIN)
    nothing_is_left(namespace)


def fate_of(namespace: Namespace, spec: dict[str, Any]) -> str:
    head = {"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"}}
    taken = tried(namespace, {**head, "spec": spec})
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
        assert all(tried(namespace, it) for it in made if it), made
    if created or sampling.spec.suspend:
        return "planned"
    (written,) = [it.status for it in decision.actions if isinstance(it, WriteStatus)]
    (accepted,) = [it for it in written.conditions if it.type == ConditionType.ACCEPTED]
    assert accepted.message
    return f"refused by the operator: {accepted.reason}"
