"""The operator at an API server of which every fifth answer is a trouble, or none, with a clock that jumps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster.flaky_api import WATCH_WAYS, WAYS, FlakyApi, flaky_api
from tests.cluster.hindrances import without
from tests.cluster.kube import Manifest, Namespace, phase
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, nothing_is_left

PROGRAM = Path(__file__).with_name("operator_with_a_clock.py")
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC = SMALL | {
    "samples": 64,
    "sampler": {"name": "ddpm", "steps": 200},
    "startupDeadlineSeconds": 300,
    "activeDeadlineSeconds": 300,
}
HOUR, DAY = 3600, 86_400
# An undisturbed sampling takes some 50; each request that goes wrong takes a look with it.
MOST_REQUESTS = 300

pytestmark = [pytest.mark.alone, pytest.mark.long, pytest.mark.node]


def kubeconfig(url: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "flaky", "cluster": {"server": url}}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "flaky", "user": "operator"}}],
            "current-context": "it",
        }
    )


@contextmanager
def operator_here(deployment: Manifest, config: Path, clock: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process on this machine, with the settings of the Deployment, for the time of the block."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = {it["name"]: it["value"] for it in container["env"] if "value" in it}
    place = {"OPERATOR_NAMESPACE": deployment["metadata"]["namespace"], "KUBECONFIG": str(config)}
    with (
        log.open("wb") as words,
        subprocess.Popen(
            [sys.executable, PROGRAM, clock], env=os.environ | settings | place, stdout=words, stderr=words
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture
def flaky(namespace: Namespace) -> Iterator[FlakyApi]:
    with flaky_api(namespace.cluster.dynamic.client.configuration) as api:
        yield api


def test_with_an_api_server_in_trouble_and_a_clock_that_jumps_the_outcome_is_the_same(
    namespace: Namespace, operator: Operator, worker_image: str, flaky: FlakyApi, tmp_path: Path
) -> None:
    config, clock, log = (tmp_path / name for name in ("kubeconfig", "clock", "operator.log"))
    account = operator.account.rsplit(":", 1)[-1]
    token = operator.kubectl_says("create", "token", account, "--namespace", operator.place, "--duration", "1h")
    config.write_text(kubeconfig(flaky.url, token.strip()))

    def set_clock(seconds: int) -> None:
        (tmp_path / "set").write_text(str(seconds))
        (tmp_path / "set").replace(clock)

    set_clock(0)
    with (
        without(namespace.cluster, account) as deployment,
        operator_here(deployment, config, clock, log) as process,
    ):
        sampling = Sampling.apply(namespace, "digits", SPEC)
        sampling.wait(lambda it: phase(it) == "Starting", "digits to start")
        set_clock(HOUR)
        sampling.wait_for("Running")
        set_clock(-DAY)
        status = sampling.wait_until_complete(64)["status"]
        assert process.poll() is None, log.read_text()
        asked, wrong = flaky.asked, flaky.wrong
    assert (status["attempt"], status["failedAttempts"], status["phase"]) == (1, 0, "Succeeded")
    nothing_is_left(namespace)
    print(f"{asked} requests, {flaky.watched} watches, {dict(wrong)}")
    assert set(wrong) == {*WAYS, *WATCH_WAYS}
    assert asked < MOST_REQUESTS
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    assert samples == local_samples(64, tmp_path, *SAMPLER)
    assert manifest == status["output"]["manifestSha256"]
