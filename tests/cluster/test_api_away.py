"""The API server is unavailable for half a minute, crashed or hanging, while samplings start, run and are deleted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.disruptions import deletion_blocked
from tests.cluster.kube import Namespace, has_condition
from tests.cluster.local_node import NODE
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import LIGHT, SMALL, Sampling, assert_nothing_left, head_of

AWAY = "30"
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SHORT_RUN = SMALL | {"samples": 128, "sampler": {"name": "ddpm", "steps": 200}}

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.node]


@pytest.mark.parametrize("way", [[], ["--hang"]], ids=["crashed", "hanging"])
def test_an_unavailable_api_server_changes_nothing(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path, way: list[str]
) -> None:
    ended = Sampling.apply(namespace, "ended", LIGHT)
    ended.wait_for("ClusterReady")
    with deletion_blocked(namespace, head_of(ended)["name"]):
        running = Sampling.apply(namespace, "running", SHORT_RUN)
        ended.wait_for("Complete")
        running.wait_for("Running")
        starting = Sampling.apply(namespace, "starting", LIGHT)
        starting.wait(lambda it: bool(it.get("status", {}).get("cluster")), "a cluster")
        restarts = operator.restarts()
        subprocess.run([NODE / "api-away", *way, AWAY], check=True)
        assert not has_condition("CleanedUp")(ended.get())

    seen = [it.wait_until_complete(samples) for it, samples in ((ended, 16), (running, 128), (starting, 16))]
    assert [(it["status"]["attempt"], it["status"]["failedAttempts"]) for it in seen] == [(1, 0)] * 3
    assert_nothing_left(namespace)
    assert operator.restarts() == restarts
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="running-output"
    )
    assert samples == local_samples(128, tmp_path, *SAMPLER)
    assert manifest == seen[1]["status"]["output"]["manifestSha256"]
