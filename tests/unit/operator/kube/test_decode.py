"""A sampling that does not fit the operator's schema: the operator reports the field and does nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.head_client import HeadClient, new_session
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.fakes.operator import SPEC, FakeOperator

RUNNING = {"type": "Running", "status": "True", "reason": "Sampling", "lastTransitionTime": "2026-11-23T12:00:00Z"}
PATH = f"{SAMPLINGS}/digits"


def put(server: ApiServer, **fields: Any) -> ObjectKey:  # noqa: ANN401 - any YAML
    document = {"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"}}
    stored = server.put(PATH, {**document, "spec": SPEC, **fields})
    return ObjectKey("research", "digits", stored["metadata"]["uid"])


def reconcile(server: ApiServer, key: ObjectKey, times: int = 1) -> list[float | None]:
    """Reconciles the sampling with one operator; returns the requeue times."""

    async def run() -> list[float | None]:
        async with server.open() as api, new_session() as session:

            def no_head(_: str, tokens: Tokens) -> HeadClient:
                return HeadClient(session, "http://127.0.0.1:1", "http://127.0.0.1:1", tokens)

            operator = FakeOperator(api, server, no_head)
            return [await operator.controller.reconcile_one(key) for _ in range(times)]

    return asyncio.run(run())


def accepted(server: ApiServer) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = server.objects[PATH]["status"]["conditions"]
    return next(it for it in conditions if it["type"] == "Accepted")


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"spec": SPEC | {"quality": {"fid": True}}}, "spec.quality: Extra inputs are not permitted"),
        ({"spec": SPEC | {"samples": 0}}, "spec.samples: Input should be greater than or equal to 1"),
        ({"status": {"phase": "Unknown"}}, "status.phase: Input should be"),
    ],
)
def test_an_invalid_sampling_is_not_accepted(fields: dict[str, Any], detail: str) -> None:
    server = ApiServer()
    assert reconcile(server, put(server, **fields)) == [None]
    condition = accepted(server)
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == ("False", "InvalidSpec", 1)
    assert detail in condition["message"]
    assert "upgrade the chart" in condition["message"]
    assert set(server.objects) == {PATH}


def test_other_fields_of_the_status_are_kept() -> None:
    server = ApiServer()
    status = {"phase": "Running", "attempt": 2, "conditions": [RUNNING], "unknownField": 1}
    reconcile(server, put(server, status=status))
    written = server.objects[PATH]["status"]
    assert written | {"conditions": None} == status | {"conditions": None}
    assert RUNNING in written["conditions"]


def test_the_condition_is_written_once_per_message() -> None:
    server = ApiServer()
    key = put(server, spec=SPEC | {"quality": {}})
    reconcile(server, key)
    first, version = accepted(server), server.objects[PATH]["metadata"]["resourceVersion"]
    assert reconcile(server, key, times=2) == [None, None]
    assert server.objects[PATH]["metadata"]["resourceVersion"] == version
    server.objects[PATH]["spec"] = SPEC | {"samples": 0}
    accepted(server)["lastTransitionTime"] = "2026-11-23T12:00:00Z"
    reconcile(server, key)
    assert accepted(server)["message"] != first["message"]
    assert accepted(server)["lastTransitionTime"] == "2026-11-23T12:00:00Z"


def test_a_corrected_sampling_is_accepted() -> None:
    server = ApiServer()
    key = put(server, spec=SPEC | {"quality": {}})
    reconcile(server, key)
    server.objects[PATH]["spec"] = SPEC
    reconcile(server, key)
    assert accepted(server)["status"] == "True"


@pytest.mark.parametrize("ended", [{"status": {"completionTime": "2026-11-23T12:00:00Z", "unknownField": 1}}, {}])
def test_an_ended_or_deleted_sampling_is_not_written(ended: dict[str, Any]) -> None:
    server = ApiServer()
    key = put(server, spec=SPEC | {"quality": {}}, **ended)
    if not ended:
        server.objects[PATH]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    version = server.objects[PATH]["metadata"]["resourceVersion"]
    reconcile(server, key)
    assert server.objects[PATH]["metadata"]["resourceVersion"] == version


def test_a_rejected_status_write_is_retried() -> None:
    server = ApiServer(fail_at=1)
    first, second = reconcile(server, put(server, spec=SPEC | {"quality": {}}), times=2)
    assert first
    assert second is None
    assert accepted(server)["status"] == "False"
