"""The operator is upgraded in every phase of one sampling, whose result does not change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.disruptions import deletion_blocked
from tests.cluster.kube import Namespace, has_condition, phase
from tests.cluster.manifests import claim
from tests.cluster.operator_release import SELECTOR, Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left, head_of, suspend_cluster

N = 128
SAMPLER = ("--sampler", "ddpm", "--steps", "200")
SPEC = SMALL | {
    "samples": N,
    "sampler": {"name": "ddpm", "steps": 200},
    "output": {"uri": "pvc://results/digits"},
    "queueName": "gpus",
}
ROLLOUT_TIMEOUT = 60.0

pytestmark = [pytest.mark.operator_away, pytest.mark.long]


def test_upgrades_in_every_phase_change_nothing(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path
) -> None:
    pods = [operator.pods()]

    def upgrade(during: str) -> None:
        replace(operator, values=(f"podAnnotations.during={during}",)).install()
        pods.append(operator.pods())

    try:
        sampling = Sampling.apply(namespace, "digits", SPEC)
        sampling.wait(lambda it: phase(it) == "Pending", "digits to wait for its claim")
        with ThreadPoolExecutor() as executor:
            upgraded = executor.submit(upgrade, "pending")
            # The claim is created while no operator runs, so the first one has not observed it.
            operator.namespace.wait_for_all(
                "v1",
                "Pod",
                lambda it: not {pod["metadata"]["name"] for pod in it} & set(pods[0]),
                ROLLOUT_TIMEOUT,
                "the first operator to stop",
                SELECTOR,
            )
            namespace.apply(claim("results"))
            upgraded.result()

        suspend_cluster(sampling, True)
        sampling.wait(lambda it: phase(it) == "Queued", "digits to be queued")
        upgrade("queued")
        assert phase(sampling.get()) == "Queued"

        suspend_cluster(sampling, False)
        sampling.wait(lambda it: phase(it) == "Starting", "digits to start")
        upgrade("starting")

        sampling.wait_for("Running")
        head = head_of(sampling)
        with deletion_blocked(namespace, head["name"]):
            upgrade("running")
            sampling.wait_for("Complete")
            upgrade("cleaning-up")
            assert head_of(sampling)["uid"] == head["uid"]
            assert not has_condition("CleanedUp")(sampling.get())
        seen = sampling.wait_until_complete(N)["status"]
    finally:
        operator.install()

    assert len({name for names in pods for name in names}) == len(pods), "an upgrade did not replace the operator's pod"
    assert (seen["attempt"], seen["failedAttempts"]) == (1, 0)
    assert_nothing_left(namespace)
    folder = "/out/digits"
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, f"{folder}/samples.npy", f"{folder}/manifest.json", claim="results"
    )
    assert samples == local_samples(N, tmp_path, *SAMPLER)
    assert manifest == seen["output"]["manifestSha256"]
