"""What a sampling that has failed says of it, and what one says that waits."""

from __future__ import annotations

from typing import Any

from tests.cluster.kube import Condition, Manifest, Namespace, has_condition
from tests.cluster.samplings import API, KIND

ENDS_WITHIN = 300.0


def failed(namespace: Namespace, name: str) -> dict[str, Any]:
    """The status of a sampling, once it has failed and nothing is left of it."""

    def ended(seen: Manifest) -> bool:
        return has_condition("Failed")(seen) and has_condition("CleanedUp")(seen)

    seen = namespace.wait(API, KIND, name, ended, ENDS_WITHIN, f"{name} to fail")
    status: dict[str, Any] = seen["status"]
    return status


def ready_says(reason: str) -> Condition:
    """Whether the condition ClusterReady has that reason."""

    def says(seen: Manifest) -> bool:
        conditions = seen.get("status", {}).get("conditions", [])
        return any(it["type"] == "ClusterReady" and it["reason"] == reason for it in conditions)

    return says


def told(status: dict[str, Any], reason: str, where: str, what_to_do: str) -> None:
    """The failure names all three, in the status and in the condition."""
    failure = status["failure"]
    assert (failure["reason"], status["phase"], status.get("attempt", 1)) == (reason, "Failed", 1), failure
    assert where in failure["message"]
    assert what_to_do in failure["hint"]
    [condition] = [it for it in status["conditions"] if it["type"] == "Failed"]
    assert condition["reason"] == reason
    assert condition["message"] == f"{failure['message']} {failure['hint']}"
    assert len(failure.get("logTail", "").encode()) <= 2048
