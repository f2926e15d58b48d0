"""A cluster of which a part is not there yet, and an operator that dies in between."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ddpm_operator.kube.decode import MANAGER, objection
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.manifests import secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import OF_THE_OPERATOR, SMALL, Sampling, nothing_is_left

SEEN_WITHIN = 60.0
NO_MORE_SECRETS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-more-secrets"},
    "spec": {"hard": {"count/secrets": "1"}},
}

pytestmark = pytest.mark.usefixtures("operator")


def waits_for_its_secret(sampling: Manifest) -> bool:
    conditions = sampling.get("status", {}).get("conditions", [])
    return any(it["type"] == "ClusterReady" and it["reason"] == "QuotaExceeded" for it in conditions)


def waits_for_its_configuration(pods: list[Manifest]) -> bool:
    states = [it["state"] for pod in pods for it in pod["status"].get("containerStatuses", [])]
    return [state.get("waiting", {}).get("reason") for state in states] == ["CreateContainerConfigError"]


@pytest.mark.long
def test_without_its_secret_nothing_of_a_cluster_starts_and_the_next_operator_brings_it(
    namespace: Namespace, operator: Operator
) -> None:
    namespace.apply(secret("another", {"key": "value"}), NO_MORE_SECRETS)
    namespace.wait(
        "v1",
        "ResourceQuota",
        "no-more-secrets",
        lambda it: it.get("status", {}).get("used") == {"count/secrets": "1"},
        SEEN_WITHIN,
        "the quota to be used up",
    )
    sampling = Sampling.apply(namespace, "digits", SMALL)
    sampling.wait(waits_for_its_secret, "a cluster that lacks its Secret")
    namespace.wait_for_all("v1", "Pod", waits_for_its_configuration, SEEN_WITHIN, "a head that cannot start")
    assert not namespace.list("v1", "Secret", OF_THE_OPERATOR)

    operator.kill()
    namespace.cluster.core.delete_namespaced_resource_quota("no-more-secrets", namespace.name)
    status = sampling.wait_until_complete(16)["status"]
    assert (status["attempt"], status["phase"]) == (1, "Succeeded")
    nothing_is_left(namespace)


@pytest.mark.draws_nothing
def test_what_cannot_be_read_is_said_beside_what_the_status_says_already(namespace: Namespace) -> None:
    seen = Sampling.apply(namespace, "digits", SMALL | {"suspend": True}).wait_for("Suspended")
    said = objection(seen, "spec.quality: Extra inputs are not permitted", datetime.now(UTC))
    assert said
    status = namespace.cluster.resource(seen["apiVersion"], seen["kind"]).subresources["status"]
    namespace.cluster.dynamic.server_side_apply(
        status, body=said, name="digits", namespace=namespace.name, field_manager=MANAGER, force_conflicts=True
    )
    then = namespace.get(seen["apiVersion"], seen["kind"], "digits")["status"]
    accepted = [it for it in then["conditions"] if it["type"] == "Accepted"]
    assert [(it["status"], it["reason"]) for it in accepted] == [("False", "InvalidSpec")]
    others = [it for it in then["conditions"] if it["type"] != "Accepted"]
    assert then | {"conditions": others} == seen["status"]
