"""A sampling from creation to clean-up over HTTP, while any single request fails or the operator dies after it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ddpm_operator.manifests.templating import Templates
from tests.fakes.api_server import SAMPLINGS, ApiServer, FailureMode
from tests.fakes.operator import Failure, FakeDriver, N, assert_succeeded, event_reasons, run_sampling

# Shared, so that the templates are compiled once.
TEMPLATES = Templates()


def run(
    fail_at: int | None = None,
    failure: Failure = "rejected",
    unavailable: range = range(0),
    unavailable_status: int = 500,
) -> tuple[ApiServer, FakeDriver, int]:
    """Runs a sampling; returns the API server, the driver and the number of requests."""
    mode: FailureMode = "rejected" if failure == "rejected" else "response lost"
    server = ApiServer(
        fail_at=fail_at, failure_mode=mode, unavailable=unavailable, unavailable_status=unavailable_status
    )
    driver = FakeDriver()
    return server, driver, asyncio.run(run_sampling(server, driver, failure, TEMPLATES))


def test_a_sampling_without_failures() -> None:
    server, driver, requests = run()
    assert_succeeded(server, driver)
    assert len(driver.jobs) == 1
    assert json.loads(driver.jobs[0]["runtime_env"]["env_vars"]["DDPM_JOB"])["n_samples"] == N
    assert driver.jobs[0]["runtime_env"]["env_vars"]["DDPM_ATTEMPT"].endswith("/1")
    assert event_reasons(server) == ["Accepted", "ClusterCreated", "Completed", "ClusterDeleted"]
    assert requests < 25


class PlacedDriver(FakeDriver):
    """A driver that reports its hardware, and that its head draws."""

    def outcome_document(self) -> dict[str, Any]:
        plan = {"device": "cpu", "batchSize": 32, "shards": 1, "hardware": {"aten": "AVX512"}}
        return super().outcome_document() | {"plan": plan, "nodeIps": {"ready": ["ip"], "otherHardware": []}}


@pytest.mark.parametrize("readable", [True, False])
def test_the_labels_of_the_node_that_draws_are_recorded(readable: bool) -> None:
    server, driver = ApiServer(), PlacedDriver()
    if readable:
        labels = {"kubernetes.io/arch": "amd64", "zone": "a"}
        server.put("/api/v1/nodes/node-a", {"metadata": {"name": "node-a", "labels": labels}})
    asyncio.run(run_sampling(server, driver, "rejected", TEMPLATES))
    status = server.objects[f"{SAMPLINGS}/digits"]["status"]
    assert status["plan"]["hardware"] == {"aten": "AVX512"}
    expected = {"kubernetes.io/arch": ["amd64"]} if readable else {}
    assert (status["placement"]["nodes"], status["placement"]["nodeLabels"]) == (["node-a"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("failure", ["rejected", "response lost", "operator dies"])
def test_recovers_from_a_failure_at_any_request(failure: Failure) -> None:
    _, _, requests = run()
    for fail_at in range(requests):
        server, driver, _ = run(fail_at, failure)
        assert_succeeded(server, driver)
        # A new operator may have missed the driver's outcome, and then submits another job.
        assert failure == "operator dies" or len(driver.jobs) == 1


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503, 0], ids=["429", "503", "no response"])
def test_recovers_from_an_outage_at_any_time(status: int) -> None:
    _, _, requests = run()
    for first in range(requests):
        server, driver, _ = run(unavailable=range(first, first + 8), unavailable_status=status)
        assert_succeeded(server, driver)
        assert len(driver.jobs) == 1
