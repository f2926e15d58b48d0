"""A cluster without its Secret while the operator is killed, and a spec that the operator cannot read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ddpm_operator.kube.decode import SCHEMA_FIELD_MANAGER, schema_mismatch_status
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.manifests import secret
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import OPERATOR_SELECTOR, SMALL, Sampling, assert_nothing_left

SEEN_TIMEOUT = 60.0
NO_MORE_SECRETS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-more-secrets"},
    "spec": {"hard": {"count/secrets": "1"}},
}

pytestmark = pytest.mark.usefixtures("operator")


def waits_for_quota(sampling: Manifest) -> bool:
    conditions = sampling.get("status", {}).get("conditions", [])
    return any(it["type"] == "ClusterReady" and it["reason"] == "QuotaExceeded" for it in conditions)


def has_config_error(pods: list[Manifest]) -> bool:
    states = [it["state"] for pod in pods for it in pod["status"].get("containerStatuses", [])]
    return [state.get("waiting", {}).get("reason") for state in states] == ["CreateContainerConfigError"]


@pytest.mark.long
def test_a_restarted_operator_creates_a_missing_secret(namespace: Namespace, operator: Operator) -> None:
    namespace.apply(secret("another", {"key": "value"}), NO_MORE_SECRETS)
    namespace.wait(
        "v1",
        "ResourceQuota",
        "no-more-secrets",
        lambda it: it.get("status", {}).get("used") == {"count/secrets": "1"},
        SEEN_TIMEOUT,
        "the quota to be used up",
    )
    sampling = Sampling.apply(namespace, "digits", SMALL)
    sampling.wait(waits_for_quota, "a cluster without its Secret")
    namespace.wait_for_all("v1", "Pod", has_config_error, SEEN_TIMEOUT, "a head that cannot start")
    assert not namespace.list("v1", "Secret", OPERATOR_SELECTOR)

    operator.kill()
    namespace.cluster.core.delete_namespaced_resource_quota("no-more-secrets", namespace.name)
    status = sampling.wait_until_complete(16)["status"]
    assert (status["attempt"], status["phase"]) == (1, "Succeeded")
    assert_nothing_left(namespace)


@pytest.mark.draws_nothing
def test_an_unreadable_spec_is_reported_and_keeps_the_status(namespace: Namespace) -> None:
    seen = Sampling.apply(namespace, "digits", SMALL | {"suspend": True}).wait_for("Suspended")
    patch = schema_mismatch_status(seen, "spec.quality: Extra inputs are not permitted", datetime.now(UTC))
    assert patch
    subresource = namespace.cluster.resource(seen["apiVersion"], seen["kind"]).subresources["status"]
    namespace.cluster.dynamic.server_side_apply(
        subresource,
        body=patch,
        name="digits",
        namespace=namespace.name,
        field_manager=SCHEMA_FIELD_MANAGER,
        force_conflicts=True,
    )
    status = namespace.get(seen["apiVersion"], seen["kind"], "digits")["status"]
    accepted = [it for it in status["conditions"] if it["type"] == "Accepted"]
    assert [(it["status"], it["reason"]) for it in accepted] == [("False", "InvalidSpec")]
    others = [it for it in status["conditions"] if it["type"] != "Accepted"]
    assert status | {"conditions": others} == seen["status"]
