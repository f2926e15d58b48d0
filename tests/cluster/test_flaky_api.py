"""The operator with an API server that fails every fifth request, and a clock that jumps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster.disruptions import scaled_to_zero
from tests.cluster.flaky_api import REQUEST_FAILURES, WATCH_FAILURES, FlakyApi, flaky_api
from tests.cluster.kube import Manifest, Namespace, phase
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left

PROGRAM = Path(__file__).with_name("operator_with_fake_clock.py")
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC = SMALL | {
    "samples": 64,
    "sampler": {"name": "ddpm", "steps": 200},
    "startupDeadlineSeconds": 300,
    "activeDeadlineSeconds": 300,
}
HOUR, DAY = 3600, 86_400
# An undisturbed sampling needs about 50; each failed request repeats a reconcile pass.
MAX_REQUESTS = 300

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
    """Runs the operator on this machine during the block, with the environment of the Deployment."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = {it["name"]: it["value"] for it in container["env"] if "value" in it}
    identity = {"OPERATOR_NAMESPACE": deployment["metadata"]["namespace"], "KUBECONFIG": str(config)}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, PROGRAM, clock], env=os.environ | settings | identity, stdout=output, stderr=output
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


def test_a_flaky_api_server_and_clock_jumps_change_nothing(
    namespace: Namespace, operator: Operator, worker_image: str, flaky: FlakyApi, tmp_path: Path
) -> None:
    config, clock, log = (tmp_path / name for name in ("kubeconfig", "clock", "operator.log"))
    account = operator.account.rsplit(":", 1)[-1]
    token = operator.run_kubectl("create", "token", account, "--namespace", operator.namespace_name, "--duration", "1h")
    config.write_text(kubeconfig(flaky.url, token.strip()))

    def set_clock(seconds: int) -> None:
        (tmp_path / "set").write_text(str(seconds))
        (tmp_path / "set").replace(clock)

    set_clock(0)
    with (
        scaled_to_zero(namespace.cluster, account) as deployment,
        operator_here(deployment, config, clock, log) as process,
    ):
        sampling = Sampling.apply(namespace, "digits", SPEC)
        sampling.wait(lambda it: phase(it) == "Starting", "digits to start")
        set_clock(HOUR)
        sampling.wait_for("Running")
        set_clock(-DAY)
        status = sampling.wait_until_complete(64)["status"]
        assert process.poll() is None, log.read_text()
        requests, failures = flaky.requests, flaky.failures
    assert (status["attempt"], status["failedAttempts"], status["phase"]) == (1, 0, "Succeeded")
    assert_nothing_left(namespace)
    print(f"{requests} requests, {flaky.watches} watches, {dict(failures)}")
    assert set(failures) == {*REQUEST_FAILURES, *WATCH_FAILURES}
    assert requests < MAX_REQUESTS
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    assert samples == local_samples(64, tmp_path, *SAMPLER)
    assert manifest == status["output"]["manifestSha256"]
