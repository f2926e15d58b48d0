"""Interruptions of a sampling: suspension by the user or a queue, deadlines, and their continuation."""

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
# Twenty seconds of work in three-second shards.
N = 96
SHORT_RUN = SMALL | {"samples": N, "batchSize": 16, "sampler": {"name": "ddpm", "steps": 80}}
SHARDS = "import pathlib\nfor it in pathlib.Path('/out/shards').iterdir(): print(f'{it.name}:{it.stat().st_mtime_ns}')"
LOGS = "import pathlib\nfor it in pathlib.Path('/out/logs').glob('*.log'): print(it.read_text())"

pytestmark = pytest.mark.usefixtures("operator")


def done(seen: Manifest) -> int:
    return int(seen.get("status", {}).get("progress", {}).get("done", 0))


def attempts(seen: Manifest) -> tuple[int, int]:
    """Returns the number of the last attempt and of the failed ones."""
    return seen["status"]["attempt"], seen["status"]["failedAttempts"]


def time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def message(seen: Manifest, kind: str) -> str:
    return next(it["message"] for it in seen["status"]["conditions"] if it["type"] == kind)


def since(seen: Manifest) -> datetime:
    """Returns the last transition of the condition Running."""
    return time(next(it["lastTransitionTime"] for it in seen["status"]["conditions"] if it["type"] == "Running"))


def ddpm(namespace: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    kubeconfig = namespace.cluster.kubeconfig
    environment = {**os.environ, **({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})}
    return subprocess.run(
        [PLUGIN, *arguments, "-n", namespace.name], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.operator_killed
def test_suspension_by_user_and_queue_keeps_samples(
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


def wait_until_kuberay_knows_the_head(sampling: Sampling) -> None:
    """Makes KubeRay observe the head that it created.

    KubeRay creates no other head for up to five minutes if one is deleted before KubeRay has observed its creation
    (controllers/ray/expectations/scale_expectations.go). Deleting the head's Service triggers a reconcile, and the new
    Service shows that it is done.
    """
    namespace, name = sampling.namespace, f"{cluster_of(sampling)}-head-svc"
    namespace.wait_for_all("v1", "Pod", bool, SEEN_TIMEOUT, "the head", "ray.io/node-type=head")
    first = namespace.get("v1", "Service", name)["metadata"]["uid"]
    namespace.cluster.resource("v1", "Service").delete(name=name, namespace=namespace.name)

    def another(seen: Manifest) -> bool:
        return bool(seen) and seen["metadata"]["uid"] != first

    namespace.wait("v1", "Service", name, another, SEEN_TIMEOUT, "another Service of the head")


@pytest.mark.draws_nothing
def test_startup_deadline_counts_from_admission(namespace: Namespace) -> None:
    large = {"cpu": "1000", "memory": "1Gi"}
    unschedulable = {"resources": {"head": large, "worker": large, "maxWorkers": 0}, "startupDeadlineSeconds": 30}
    sampling = Sampling.apply(namespace, "digits", SMALL | unschedulable | {"queueName": "gpus"})
    wait_until_kuberay_knows_the_head(sampling)
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


def test_active_deadline_fails_and_retry_resumes(namespace: Namespace) -> None:
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

    def has_progressed(seen: Manifest) -> bool:
        return attempts(seen) == (2, 1) and done(seen) > done(failed)

    namespace.wait(API, KIND, "digits", has_progressed, END_TIMEOUT, "the next attempt to draw more")
    sampling.delete()
    assert_nothing_left(namespace)


@pytest.mark.long
def test_time_in_the_queue_does_not_count_as_active(namespace: Namespace) -> None:
    spec = LONG | {"queueName": "gpus", "activeDeadlineSeconds": 25, "backoffLimit": 0}
    sampling = Sampling.apply(namespace, "digits", spec)
    begins = since(sampling.wait_for("Running"))
    suspend_cluster(sampling, True)
    pauses = since(sampling.wait(lambda it: phase(it) == "Queued", "digits to be queued"))
    namespace.wait_for_none("v1", "Pod", SEEN_TIMEOUT, "ray.io/node-type")
    suspend_cluster(sampling, False)
    resumes = since(sampling.wait(has_condition("Running"), "digits to be running again"))

    failed = namespace.wait(API, KIND, "digits", has_condition("Failed"), SEEN_TIMEOUT, "digits to fail")
    assert (
        failed["status"]["failure"]["message"] == "It has run for 25s, the limit that spec.activeDeadlineSeconds sets."
    )
    assert pauses < resumes
    ran = (pauses - begins) + (time(failed["status"]["completionTime"]) - resumes)
    assert timedelta(seconds=24) <= ran < timedelta(seconds=35)
    assert_nothing_left(namespace)
