"""Assertions on the status of samplings that failed or wait."""

from __future__ import annotations

from typing import Any

from tests.cluster.kube import Condition, Manifest, Namespace, has_condition
from tests.cluster.samplings import API, KIND

END_TIMEOUT = 300.0


def wait_for_failure(namespace: Namespace, name: str) -> dict[str, Any]:
    """Returns the status of a sampling once it has failed and its objects are deleted."""

    def ended(seen: Manifest) -> bool:
        return has_condition("Failed")(seen) and has_condition("CleanedUp")(seen)

    seen = namespace.wait(API, KIND, name, ended, END_TIMEOUT, f"{name} to fail")
    status: dict[str, Any] = seen["status"]
    return status


def cluster_ready_reason(reason: str) -> Condition:
    """Whether the condition ClusterReady has this reason."""

    def matches(seen: Manifest) -> bool:
        conditions = seen.get("status", {}).get("conditions", [])
        return any(it["type"] == "ClusterReady" and it["reason"] == reason for it in conditions)

    return matches


def assert_failure(status: dict[str, Any], reason: str, message: str, hint: str) -> None:
    """Asserts on the failure and its condition; `message` and `hint` are parts of theirs."""
    failure = status["failure"]
    assert (failure["reason"], status["phase"], status.get("attempt", 1)) == (reason, "Failed", 1), failure
    assert message in failure["message"]
    assert hint in failure["hint"]
    [condition] = [it for it in status["conditions"] if it["type"] == "Failed"]
    assert condition["reason"] == reason
    assert condition["message"] == f"{failure['message']} {failure['hint']}"
    assert len(failure.get("logTail", "").encode()) <= 2048
