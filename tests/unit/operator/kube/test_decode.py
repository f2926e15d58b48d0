"""A sampling that the operator cannot read is left alone, and says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ddpm_operator.kube.objects import ObjectKey
from ddpm_operator.manifests.templating import Templates
from ddpm_operator.manifests.tokens import Tokens
from ddpm_operator.ray.head_client import HeadClient, new_session
from tests.fakes.api_server import SAMPLINGS, ApiServer
from tests.unit.operator.controller.test_controller import SPEC, Operator

RUNNING = {"type": "Running", "status": "True", "reason": "Sampling", "lastTransitionTime": "2026-11-23T12:00:00Z"}
AT = f"{SAMPLINGS}/digits"


def stored(server: ApiServer, **more: Any) -> ObjectKey:  # noqa: ANN401 - as YAML has them
    document = {"apiVersion": "ddpm-ray.io/v1alpha1", "kind": "DDPMSampling", "metadata": {"name": "digits"}}
    created = server.put(AT, {**document, "spec": SPEC, **more})
    return ObjectKey("research", "digits", created["metadata"]["uid"])


def look(server: ApiServer, key: ObjectKey, times: int = 1) -> list[float | None]:
    """What the looks of one operator said of when to look again."""

    async def run() -> list[float | None]:
        async with server.open() as api, new_session() as session:

            def no_head(_: str, tokens: Tokens) -> HeadClient:
                return HeadClient(session, "http://127.0.0.1:1", "http://127.0.0.1:1", tokens)

            operator = Operator(api, server, no_head, Templates())
            return [await operator.controller.look(key) for _ in range(times)]

    return asyncio.run(run())


def accepted(server: ApiServer) -> dict[str, Any]:
    conditions: list[dict[str, Any]] = server.objects[AT]["status"]["conditions"]
    return next(it for it in conditions if it["type"] == "Accepted")


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"spec": SPEC | {"quality": {"fid": True}}}, "spec.quality: Extra inputs are not permitted"),
        ({"spec": SPEC | {"samples": 0}}, "spec.samples: Input should be greater than or equal to 1"),
        ({"status": {"phase": "Dreaming"}}, "status.phase: Input should be"),
    ],
)
def test_what_cannot_be_read_is_not_accepted_and_the_field_is_named(fields: dict[str, Any], names: str) -> None:
    server = ApiServer()
    assert look(server, stored(server, **fields)) == [None]
    said = accepted(server)
    assert (said["status"], said["reason"], said["observedGeneration"]) == ("False", "InvalidSpec", 1)
    assert names in said["message"]
    assert "upgrade the chart" in said["message"]
    assert set(server.objects) == {AT}


def test_all_else_that_the_status_says_stays() -> None:
    server = ApiServer()
    status = {"phase": "Running", "attempt": 2, "conditions": [RUNNING], "invention": 1}
    look(server, stored(server, status=status))
    written = server.objects[AT]["status"]
    assert written | {"conditions": None} == status | {"conditions": None}
    assert RUNNING in written["conditions"]


def test_it_is_said_once_and_holds_since_it_was_said_first() -> None:
    server = ApiServer()
    key = stored(server, spec=SPEC | {"quality": {}})
    look(server, key)
    first, version = accepted(server), server.objects[AT]["metadata"]["resourceVersion"]
    assert look(server, key, times=2) == [None, None]
    assert server.objects[AT]["metadata"]["resourceVersion"] == version
    server.objects[AT]["spec"] = SPEC | {"samples": 0}
    accepted(server)["lastTransitionTime"] = "2026-11-23T12:00:00Z"
    look(server, key)
    assert accepted(server)["message"] != first["message"]
    assert accepted(server)["lastTransitionTime"] == "2026-11-23T12:00:00Z"


def test_once_it_can_be_read_it_is_done() -> None:
    server = ApiServer()
    key = stored(server, spec=SPEC | {"quality": {}})
    look(server, key)
    server.objects[AT]["spec"] = SPEC
    look(server, key)
    assert accepted(server)["status"] == "True"


@pytest.mark.parametrize("gone", [{"status": {"completionTime": "2026-11-23T12:00:00Z", "invention": 1}}, {}])
def test_of_what_has_ended_or_is_being_deleted_nothing_is_said(gone: dict[str, Any]) -> None:
    server = ApiServer()
    key = stored(server, spec=SPEC | {"quality": {}}, **gone)
    if not gone:
        server.objects[AT]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    version = server.objects[AT]["metadata"]["resourceVersion"]
    look(server, key)
    assert server.objects[AT]["metadata"]["resourceVersion"] == version


def test_a_refusal_to_have_it_said_is_tried_again() -> None:
    server = ApiServer(fails_at=1)
    again, then = look(server, stored(server, spec=SPEC | {"quality": {}}), times=2)
    assert again
    assert then is None
    assert accepted(server)["status"] == "False"
