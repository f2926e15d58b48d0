"""Real failures: the status names the cause, where it is, and what to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from kubernetes.client import V1DeleteOptions, V1Eviction, V1ObjectMeta

from ddpm_operator.api import DDPMSampling
from ddpm_operator.manifests.naming import cluster_name
from tests.cluster.disruptions import deletion_blocked
from tests.cluster.failures import END_TIMEOUT, assert_failure, cluster_ready_reason, wait_for_failure
from tests.cluster.kube import Condition, Manifest, Namespace, phase
from tests.cluster.manifests import claim, pod, ray_cluster, secret
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left, head_of

SEEN_TIMEOUT = 60.0
KILLED = 128 + 9
# Long enough to observe the waiting state before the deadline fails the sampling.
DEADLINE = 40
_SIZE = {"cpu": "500m", "memory": "2Gi"}
NO_RETRY = SMALL | {"backoffLimit": 0, "resources": {"head": _SIZE, "worker": _SIZE, "maxWorkers": 0}}
# For pods that never run: small enough to fit beside other tests.
_TINY = {"cpu": "100m", "memory": "1Gi"}
NEVER_RUNS = NO_RETRY | {"resources": {"head": _TINY, "worker": _TINY, "maxWorkers": 0}}
STORED = {"output": {"uri": "pvc://results/digits"}}
# Twenty seconds of work in three-second shards.
SHORT_RUN = {"samples": 96, "batchSize": 16, "sampler": {"name": "ddpm", "steps": 80}}
# The driver is the child of the supervisor.
KILL_THE_DRIVER = """
import os, pathlib
def read(process, name):
    try:
        return pathlib.Path("/proc", process, name).read_text()
    except OSError:
        return ""
programs = {it: read(it, "cmdline").split(chr(0))[1:2] for it in os.listdir("/proc") if it.isdigit()}
drivers = [it for it, program in programs.items() if program and program[0].endswith("/ddpm-sample")]
[driver] = [it for it in drivers if read(it, "stat").rpartition(")")[2].split()[1] in drivers]
os.kill(int(driver), 9)
"""
# Half a minute of work in one shard, so that every worker is killed.
ONE_SHARD = {"samples": 32, "sampler": {"name": "ddpm", "steps": 1000}}
# Until the pod is deleted.
KILL_EVERY_WORKER = """
import os, pathlib, signal, time
while True:
    time.sleep(0.05)
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pathlib.Path("/proc", process, "cmdline").read_text().startswith("ray::Worker"):
                os.kill(int(process), signal.SIGKILL)
        except OSError:
            pass
"""
# The number of shards of the first and the last attempt, from their drivers' logs.
SHARDS_OF_ATTEMPTS = """
import pathlib, re
logs = sorted(pathlib.Path("/out/logs").iterdir())
for log in (logs[0], logs[-1]):
    print(re.search("([0-9]+) shards to sample", log.read_text())[1])
"""

pytestmark = pytest.mark.usefixtures("operator")

# Name -> spec fields, the failure's reason, and parts of its message and hint.
PERMANENT: dict[str, tuple[Manifest, str, str, str]] = {
    "no-image": (
        {"image": "example.com/No/Image:1"},
        "ImagePullFailed",
        "cannot get its image",
        "spec.image",
    ),
    "no-secret": (
        {"credentialsSecretRef": {"name": "missing"}},
        "ReferenceNotFound",
        'secret "missing" not found',
        "Create the Secret",
    ),
    "no-model-claim": (
        {"model": {"uri": "pvc://missing/unet.safetensors"}},
        "ReferenceNotFound",
        'persistentvolumeclaim "missing" not found',
        "Create the Secret, claim",
    ),
    "no-output-claim": (
        {"output": {"uri": "pvc://missing/digits"}},
        "ReferenceNotFound",
        "spec.output.uri names the claim missing, which does not exist",
        "Create the Secret, claim",
    ),
    "an-account": (
        {"podOverrides": {"serviceAccountName": "unlisted"}},
        "InvalidSpec",
        "spec.podOverrides.serviceAccountName: unlisted is not allowed by the administrator",
        "ask the administrator",
    ),
    "no-scheme": (
        {"model": {"uri": "gs://models/unet.safetensors"}},
        "InvalidSpec",
        "spec.model.uri: gs:// is reserved for future use",
        "s3://, https:// or a claim",
    ),
    "a-priority": (
        {"podOverrides": {"priorityClassName": "system-node-critical"}},
        "InvalidSpec",
        "spec.podOverrides.priorityClassName: system-node-critical is not allowed by the administrator",
        "allowed.priorityClasses",
    ),
    "an-annotation": (
        {"podOverrides": {"annotations": {"cni.projectcalico.org/ipAddrsNoIpam": '["10.0.0.7"]'}}},
        "InvalidSpec",
        "spec.podOverrides.annotations: cni.projectcalico.org/ipAddrsNoIpam is not allowed by the administrator",
        "allowed.podAnnotations",
    ),
    "a-device": (
        {"resources": {"gpus": 1, "gpuResourceName": "devices.kubevirt.io/kvm"}},
        "InvalidSpec",
        "spec.resources.gpuResourceName: devices.kubevirt.io/kvm is not allowed by the administrator",
        "allowed.gpuResourceNames",
    ),
}
# Reported at once, and failed at the startup deadline.
TRANSIENT: dict[str, tuple[Manifest, str, str, str]] = {
    "no-node": (
        {"podOverrides": {"nodeSelector": {"no": "node"}}},
        "Unschedulable",
        "fits no node",
        "podOverrides",
    ),
    "no-registry": (
        {"image": "127.0.0.1:9/no/image:1"},
        "ImagePullFailed",
        "cannot get its image",
        "imagePullSecrets",
    ),
}
# Without any event or condition: the failure at the deadline says how far it got.
SILENT: dict[str, tuple[Manifest, str, str, str]] = {
    "no-scheduler": (
        {"podOverrides": {"schedulerName": "missing"}},
        "StartupDeadlineExceeded",
        "is not scheduled to a node yet",
        "startupDeadlineSeconds",
    ),
}
# Detected by the driver.
DRIVER_ERRORS: dict[str, tuple[Manifest, str, str, str]] = {
    "no-model": (
        STORED | {"model": {"uri": "pvc://results/none.safetensors"}},
        "ModelNotFound",
        "none.safetensors is not there",
        "spec.model.uri",
    ),
    "wrong-model": (
        STORED | {"model": {"uri": "builtin://mnist", "sha256": "0" * 64}},
        "ModelRejected",
        "sha256",
        "pin the new sha256",
    ),
    "another-seed": (
        STORED | {"seed": 1},
        "OutputConflict",
        "holds the samples of another job: seed: 1, there 0",
        "another spec.output.uri",
    ),
    "no-bucket": (
        {"output": {"uri": "s3://no-such-bucket/digits"}, "credentialsSecretRef": {"name": "s3"}},
        "StorageFailed",
        "there is no such bucket",
        "Create it",
    ),
}


@pytest.mark.draws_nothing
def test_permanent_causes_fail_and_transient_ones_wait(namespace: Namespace) -> None:
    late = TRANSIENT | SILENT
    for name, (fields, *_) in (PERMANENT | late).items():
        deadline = {"startupDeadlineSeconds": DEADLINE if name in late else 600}
        Sampling.apply(namespace, name, NEVER_RUNS | deadline | fields)
    for name, (_, reason, *_) in TRANSIENT.items():
        seen = Sampling(namespace, name).wait(cluster_ready_reason(reason), f"{name} to report {reason}", SEEN_TIMEOUT)
        assert seen["status"]["phase"] == "Starting"
    for name, (_, *expected) in PERMANENT.items():
        assert_failure(wait_for_failure(namespace, name), *expected)
    for name, (_, *expected) in late.items():
        status = wait_for_failure(namespace, name)
        assert_failure(status, *expected)
        assert f"did not begin sampling within {DEADLINE}s" in status["failure"]["message"]
    assert_nothing_left(namespace)


@pytest.mark.draws_nothing
def test_a_foreign_raycluster_of_the_same_name_is_kept(namespace: Namespace, worker_image: str) -> None:
    later = Sampling.apply(namespace, "digits", NO_RETRY | {"suspend": True})
    seen = later.wait_for("Suspended")
    name = cluster_name(DDPMSampling.from_document(seen).metadata, 1)
    foreign = ray_cluster(name, worker_image)
    foreign["spec"]["suspend"] = True
    namespace.apply(foreign)
    Sampling.apply(namespace, "digits", NO_RETRY | {"suspend": False})
    message = f"a RayCluster {name} exists already and does not belong to this sampling"
    assert_failure(wait_for_failure(namespace, "digits"), "InternalError", message, "find out what created it")
    assert "deletionTimestamp" not in namespace.get("ray.io/v1", "RayCluster", name)["metadata"]
    namespace.cluster.resource("ray.io/v1", "RayCluster").delete(name=name, namespace=namespace.name)
    assert_nothing_left(namespace)


def test_driver_errors_become_the_failure(namespace: Namespace, s3_environment: dict[str, str]) -> None:
    namespace.apply(claim("results"), secret("s3", s3_environment))
    Sampling.apply(namespace, "first", NO_RETRY | STORED).wait_until_complete(16)
    for name, (fields, *_) in DRIVER_ERRORS.items():
        Sampling.apply(namespace, name, NO_RETRY | fields)
    for name, (_, reason, message, hint) in DRIVER_ERRORS.items():
        status = wait_for_failure(namespace, name)
        assert_failure(status, reason, message, hint)
        assert "--" not in status["failure"]["hint"]
    assert_nothing_left(namespace)


def done(minimum: int, attempt: int) -> Condition:
    """Whether this attempt runs and at minimum so many samples are stored."""

    def so_far(seen: Manifest) -> bool:
        status = seen.get("status", {})
        progress = status.get("progress", {}).get("done", 0)
        return bool(status.get("attempt") == attempt and status["phase"] == "Running" and progress >= minimum)

    return so_far


def failed_with(reason: str) -> Condition:
    def has(seen: Manifest) -> bool:
        status = seen["status"]
        return bool(status["phase"] == "Pending" and status.get("failure", {}).get("reason") == reason)

    return has


def backoff(failed: Manifest, next_one: Manifest) -> timedelta:
    """Returns the time from the failure in one status to the start of the attempt in the other."""
    begun, failure = next_one["cluster"]["startTime"], failed["failure"]["time"]
    return datetime.fromisoformat(begun) - datetime.fromisoformat(failure)


def evict(namespace: Namespace, name: str) -> None:
    """Evicts a pod, as `kubectl drain` does."""
    meta = V1ObjectMeta(name=name, namespace=namespace.name)
    eviction = V1Eviction(metadata=meta, delete_options=V1DeleteOptions(grace_period_seconds=0))
    namespace.cluster.core.create_namespaced_pod_eviction(name, namespace.name, eviction)


def kill_the_driver(sampling: Sampling) -> Manifest:
    """Kills the driver and returns the status with the failure."""
    in_head = sampling.namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", KILL_THE_DRIVER)
    subprocess.run(in_head, check=True)
    status: Manifest = sampling.wait(failed_with("DriverFailed"), "DriverFailed")["status"]
    assert "The driver was killed by SIGKILL" in status["failure"]["message"]
    assert "shards to sample" in status["failure"]["logTail"]
    return status


def kill_the_head(sampling: Sampling) -> Manifest:
    """Evicts the head and returns the status with the failure. No attempt starts while the pod exists."""
    head = head_of(sampling)["name"]
    with deletion_blocked(sampling.namespace, head):
        evict(sampling.namespace, head)
        status: Manifest = sampling.wait(failed_with("HeadLost"), "HeadLost")["status"]
        assert f"The head pod {head} is lost: EvictionByEvictionAPI: " in status["failure"]["message"]
        sampling.wait(cluster_ready_reason("WaitingForCleanUp"), "the next attempt to wait for the head's deletion")
        assert not sampling.namespace.list("ray.io/v1", "RayCluster")
    return status


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([kill_the_head], id="a killed head"),
        pytest.param([kill_the_driver, kill_the_head], id="a killed driver and a killed head", marks=pytest.mark.long),
    ],
)
def test_stored_shards_are_not_drawn_again_after(
    kills: list[Callable[[Sampling], Manifest]], namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    sampling = Sampling.apply(namespace, "digits", NO_RETRY | SHORT_RUN | {"backoffLimit": len(kills)})
    stored = 16
    for attempt, kill in enumerate(kills, 1):
        stored += 16
        sampling.wait(done(stored, attempt), f"{stored} to be stored", END_TIMEOUT)
        lost = kill(sampling)
        assert lost["progress"]["done"] >= stored
        next_one = sampling.wait(done(stored + 16, attempt + 1), "the next attempt to draw more", END_TIMEOUT)["status"]
        assert next_one["progress"]["done"] >= lost["progress"]["done"]
        assert backoff(lost, next_one) >= timedelta(seconds=10 * 2 ** (attempt - 1))

    status = sampling.wait_for("Complete", END_TIMEOUT)["status"]
    assert (status["attempt"], status["failedAttempts"], "failure" in status) == (
        len(kills) + 1,
        len(kills),
        False,
    )
    assert status["progress"]["done"] == 96
    assert_nothing_left(namespace)
    [samples] = run_python(namespace, worker_image, DIGESTS, "/out/samples.npy", claim="digits-output")
    assert samples == local_samples(96, tmp_path, "--sampler", "ddpm", "--steps", "80", "--batch_size", "16")
    first, last = run_python(namespace, worker_image, SHARDS_OF_ATTEMPTS, claim="digits-output")
    assert (int(first), int(last) <= (96 - stored) // 16) == (6, True)


def test_a_batch_too_large_for_the_memory_is_out_of_memory(namespace: Namespace) -> None:
    size = {"cpu": "1", "memory": "1536Mi"}
    spec = NO_RETRY | {"batchSize": 32_768, "resources": {"head": size, "worker": size, "maxWorkers": 0}}
    Sampling.apply(namespace, "large", spec)
    assert_failure(wait_for_failure(namespace, "large"), "OutOfMemory", "memory", "memory")
    assert_nothing_left(namespace)


@pytest.mark.long
def test_a_worker_killed_for_its_memory_is_out_of_memory(namespace: Namespace, worker_image: str) -> None:
    command = [
        "ddpm-sample",
        "--json",
        "--ray_address",
        "None",
        "--model_path",
        "builtin://mnist",
        "--n_samples",
        "16",
    ]
    large = pod("large", worker_image, [*command, "--batch_size", "32768", "--out_dir", "/tmp/out"])
    [container] = large["spec"]["containers"]
    container["resources"]["limits"]["memory"] = "1536Mi"
    # Disables Ray's own memory monitor, which is usually faster than the kernel.
    container["env"] = [{"name": "RAY_memory_monitor_refresh_ms", "value": "0"}, {"name": "HOME", "value": "/tmp"}]
    namespace.apply(large)
    ended = namespace.wait("v1", "Pod", "large", lambda it: phase(it) == "Failed", END_TIMEOUT, "large to end")
    [status] = ended["status"]["containerStatuses"]
    end, log = status["state"]["terminated"], namespace.logs("large")
    # On cgroup v2 the kernel kills the whole container, so no process can report it. On v1 it kills only the worker,
    # and the kubelet may report any later exit of the container as OOMKilled.
    if end["exitCode"] == KILLED:
        assert end["reason"] == "OOMKilled"
    else:
        error = json.loads(next(line for line in log.splitlines() if '"event": "error"' in line))
        assert (end["exitCode"], error["exitCode"], error["reason"]) == (4, 4, "OutOfMemory"), log
        assert "the kernel killed a worker" in error["message"]


def test_repeatedly_dying_workers_fail_the_sampling(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "digits", NO_RETRY | ONE_SHARD)
    sampling.wait(cluster_ready_reason("Ready"), "a head")
    in_head = namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", KILL_EVERY_WORKER)
    with subprocess.Popen(in_head):
        status = wait_for_failure(namespace, "digits")
    assert_failure(status, "WorkerLost", "worker died: ", "`kubectl ddpm retry` draws the missing samples")
    assert_nothing_left(namespace)
