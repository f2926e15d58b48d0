"""What stops a sampling for a while, and that it goes on: suspended, taken back by a queue, late, no KubeRay."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.cluster.disruptions import SEEN_TIMEOUT
from tests.cluster.kube import Manifest, Namespace, has_condition, phase
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import (
    API,
    END_TIMEOUT,
    KIND,
    LONG,
    SMALL,
    Sampling,
    assert_nothing_left,
    cluster_of,
    suspend_cluster,
)

PLUGIN = Path(sys.executable).with_name("kubectl-ddpm")
SAMPLER = ("--sampler", "ddpm", "--steps", "80", "--batch_size", "16")
# Work for twenty seconds, in shards of three.
N = 96
SHORT_RUN = SMALL | {"samples": N, "batchSize": 16, "sampler": {"name": "ddpm", "steps": 80}}
SHARDS = "import pathlib\nfor it in pathlib.Path('/out/shards').iterdir(): print(f'{it.name}:{it.stat().st_mtime_ns}')"
LOGS = "import pathlib\nfor it in pathlib.Path('/out/logs').glob('*.log'): print(it.read_text())"

pytestmark = pytest.mark.usefixtures("operator")


def done(seen: Manifest) -> int:
    return int(seen.get("status", {}).get("progress", {}).get("done", 0))


def attempts(seen: Manifest) -> tuple[int, int]:
    """The number of the last one, and how many failed."""
    return seen["status"]["attempt"], seen["status"]["failedAttempts"]


def time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def message(seen: Manifest, kind: str) -> str:
    return next(it["message"] for it in seen["status"]["conditions"] if it["type"] == kind)


def since(seen: Manifest) -> datetime:
    """Since when it is Running, or not."""
    return time(next(it["lastTransitionTime"] for it in seen["status"]["conditions"] if it["type"] == "Running"))


def ddpm(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = namespace.cluster.kubeconfig
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    return subprocess.run(
        [PLUGIN, *arguments, "-n", namespace.name], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.operator_killed
def test_samples_that_are_done_stay_done_when_a_user_suspends_and_when_a_queue_takes_the_cluster(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path
) -> None:
    sampling = Sampling.apply(namespace, "digits", SHORT_RUN | {"queueName": "gpus"})
    sampling.wait(lambda it: done(it) > 0, "the first shard")
    Sampling.apply(namespace, "digits", SHORT_RUN | {"queueName": "gpus", "suspend": True})
    suspended = sampling.wait(
        lambda it: has_condition("Suspended")(it) and has_condition("CleanedUp")(it), "digits to be suspended"
    )
    assert phase(suspended) == "Suspended"
    assert 0 < done(suspended) < N
    assert_nothing_left(namespace)
    before = run_python(namespace, worker_image, SHARDS, claim="digits-output")
    assert before
    log = run_python(namespace, worker_image, LOGS, claim="digits-output")
    assert "stopped by a signal" in " ".join(log)
    operator.kill()

    Sampling.apply(namespace, "digits", SHORT_RUN | {"queueName": "gpus", "suspend": False})
    sampling.wait(has_condition("Running"), "digits to be running again")
    suspend_cluster(sampling, True)
    queued = sampling.wait(lambda it: phase(it) == "Queued", "digits to be queued")
    assert message(queued, "ClusterReady") == "The RayCluster waits for the queue gpus."
    assert "eta" not in queued["status"]["progress"]
    namespace.wait_for_none("v1", "Pod", SEEN_TIMEOUT, "ray.io/node-type")
    operator.kill()
    suspend_cluster(sampling, False)

    seen = sampling.wait_until_complete(N)
    assert attempts(seen) == (2, 0)
    assert_nothing_left(namespace)
    assert set(before) <= set(run_python(namespace, worker_image, SHARDS, claim="digits-output"))
    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    assert samples == local_samples(N, tmp_path, *SAMPLER)
    assert manifest == seen["status"]["output"]["manifestSha256"]


def let_kuberay_see_the_head(sampling: Sampling) -> None:
    """KubeRay makes no other head for up to five minutes if one goes before KubeRay has seen that it was made.

    Its own note of that lies in controllers/ray/expectations/scale_expectations.go. A head's Service that is gone
    makes KubeRay look once more, and that it did so is to be seen.
    """
    namespace, name = sampling.namespace, f"{cluster_of(sampling)}-head-svc"
    namespace.wait_for_all("v1", "Pod", bool, SEEN_TIMEOUT, "the head", "ray.io/node-type=head")
    first = namespace.get("v1", "Service", name)["metadata"]["uid"]
    namespace.cluster.resource("v1", "Service").delete(name=name, namespace=namespace.name)

    def another(seen: Manifest) -> bool:
        return bool(seen) and seen["metadata"]["uid"] != first

    namespace.wait("v1", "Service", name, another, SEEN_TIMEOUT, "another Service of the head")


@pytest.mark.draws_nothing
def test_the_deadline_of_the_start_counts_from_the_admission(namespace: Namespace) -> None:
    large = {"cpu": "1000", "memory": "1Gi"}
    never = {"resources": {"head": large, "worker": large, "maxWorkers": 0}, "startupDeadlineSeconds": 30}
    sampling = Sampling.apply(namespace, "digits", SMALL | never | {"queueName": "gpus"})
    let_kuberay_see_the_head(sampling)
    suspend_cluster(sampling, True)
    queued = sampling.wait(lambda it: phase(it) == "Queued", "digits to be queued")
    assert "startTime" not in queued["status"]["cluster"]
    namespace.wait_for_none("v1", "Pod", SEEN_TIMEOUT)
    suspend_cluster(sampling, False)
    starting = sampling.wait(lambda it: phase(it) == "Starting", "digits to be admitted")
    admitted = time(starting["status"]["cluster"]["startTime"])

    failed = namespace.wait(API, KIND, "digits", has_condition("Failed"), SEEN_TIMEOUT, "digits to fail")
    failure = failed["status"]["failure"]
    assert failure["reason"] == "Unschedulable"
    assert failure["message"].endswith("within 30s of its admission.")
    assert timedelta(0) <= time(failure["time"]) - admitted - timedelta(seconds=30) < timedelta(seconds=10)
    assert_nothing_left(namespace)


def test_what_ran_too_long_fails_and_is_tried_again_by_kubectl_ddpm_retry(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "digits", SHORT_RUN | {"activeDeadlineSeconds": 2})
    running = sampling.wait_for("Running")
    failed = namespace.wait(API, KIND, "digits", has_condition("Failed"), SEEN_TIMEOUT, "digits to fail")
    status = failed["status"]
    assert (status["failure"]["reason"], status["failure"]["message"]) == (
        "DeadlineExceeded",
        "It has run for 2s, the limit that spec.activeDeadlineSeconds sets.",
    )
    began = next(it for it in running["status"]["conditions"] if it["type"] == "Running")["lastTransitionTime"]
    assert timedelta(seconds=2) <= time(status["completionTime"]) - time(began) < timedelta(seconds=10)
    assert done(failed) < N

    Sampling.apply(namespace, "digits", SHORT_RUN | {"activeDeadlineSeconds": 600})
    resumed = ddpm(namespace, "retry", "digits")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith(f"digits retried with {done(failed)} of {N} samples done; ")

    def has_gone_on(seen: Manifest) -> bool:
        return attempts(seen) == (2, 1) and done(seen) > done(failed)

    namespace.wait(API, KIND, "digits", has_gone_on, END_TIMEOUT, "the next attempt to draw more")
    sampling.delete()
    assert_nothing_left(namespace)


@pytest.mark.long
def test_what_a_queue_takes_back_has_no_less_time_for_it(namespace: Namespace) -> None:
    spec = LONG | {"queueName": "gpus", "activeDeadlineSeconds": 25, "backoffLimit": 0}
    sampling = Sampling.apply(namespace, "digits", spec)
    begins = since(sampling.wait_for("Running"))
    suspend_cluster(sampling, True)
    pauses = since(sampling.wait(lambda it: phase(it) == "Queued", "digits to be queued"))
    namespace.wait_for_none("v1", "Pod", SEEN_TIMEOUT, "ray.io/node-type")
    suspend_cluster(sampling, False)
    resumes = since(sampling.wait(has_condition("Running"), "digits to be running again"))

    failed = namespace.wait(API, KIND, "digits", has_condition("Failed"), SEEN_TIMEOUT, "digits to fail")
    assert failed["status"]["failure"]["message"] == "It has run for 25s, the limit that spec.activeDeadlineSeconds sets."
    assert pauses < resumes
    ran = (pauses - begins) + (time(failed["status"]["completionTime"]) - resumes)
    assert timedelta(seconds=24) <= ran < timedelta(seconds=35)
    assert_nothing_left(namespace)
