"""What can go wrong, done for real: the status names the cause, says where it is and what to do about it."""

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
from tests.cluster.failures import ENDS_WITHIN, failed, ready_says, told
from tests.cluster.hindrances import held
from tests.cluster.kube import Condition, Manifest, Namespace, phase
from tests.cluster.manifests import claim, pod, ray_cluster, secret
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, head_of, nothing_is_left

SEEN_WITHIN = 60.0
KILLED = 128 + 9
# Long enough for what is shown at once to be seen before it ends a sampling.
DEADLINE = 40
_SIZE = {"cpu": "500m", "memory": "2Gi"}
ONE_TRY = SMALL | {"backoffLimit": 0, "resources": {"head": _SIZE, "worker": _SIZE, "maxWorkers": 0}}
# For pods that never run: they fit beside whatever else does.
_LITTLE = {"cpu": "100m", "memory": "1Gi"}
NEVER_RUNS = ONE_TRY | {"resources": {"head": _LITTLE, "worker": _LITTLE, "maxWorkers": 0}}
STORED = {"output": {"uri": "pvc://results/digits"}}
# Work for twenty seconds, in shards of three.
A_WHILE = {"samples": 96, "batchSize": 16, "sampler": {"name": "ddpm", "steps": 80}}
# The driver is the child of the process that watches over it.
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
# Half a minute of work in one piece, so that each worker is met.
A_SHARD = {"samples": 32, "sampler": {"name": "ddpm", "steps": 1000}}
# As long as the pod is there.
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
# How many shards the first and the last attempt had to draw, as their drivers' logs have it.
SHARDS_IN_LOGS = """
import pathlib, re
logs = sorted(pathlib.Path("/out/logs").iterdir())
for log in (logs[0], logs[-1]):
    print(re.search("([0-9]+) shards to sample", log.read_text())[1])
"""

pytestmark = pytest.mark.usefixtures("operator")

# By name: what is asked for, the reason, where it is, what to do.
NEVER_BEGIN: dict[str, tuple[Manifest, str, str, str]] = {
    "no-image": (
        {"image": "example.com/No/Image:1"},
        "ImagePullFailed",
        "cannot get its image",
        "spec.image",
    ),
    "no-secret": (
        {"credentialsSecretRef": {"name": "nowhere"}},
        "ReferenceNotFound",
        'secret "nowhere" not found',
        "Create the Secret",
    ),
    "no-model-claim": (
        {"model": {"uri": "pvc://nowhere/unet.safetensors"}},
        "ReferenceNotFound",
        'persistentvolumeclaim "nowhere" not found',
        "Create the Secret, claim",
    ),
    "no-output-claim": (
        {"output": {"uri": "pvc://nowhere/digits"}},
        "ReferenceNotFound",
        "spec.output.uri names the claim nowhere, which is not there",
        "Create the Secret, claim",
    ),
    "an-account": (
        {"podOverrides": {"serviceAccountName": "nobody"}},
        "InvalidSpec",
        "spec.podOverrides.serviceAccountName: nobody is not allowed by the administrator",
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
# What may yet pass: it is said at once, and ends the sampling when its time is up.
WAIT: dict[str, tuple[Manifest, str, str, str]] = {
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
# What nobody says anything of: how far it has come is told when its time is up.
SILENT: dict[str, tuple[Manifest, str, str, str]] = {
    "no-scheduler": (
        {"podOverrides": {"schedulerName": "nobody"}},
        "StartupDeadlineExceeded",
        "has no node yet",
        "startupDeadlineSeconds",
    ),
}
# What the driver finds out.
DRIVERS: dict[str, tuple[Manifest, str, str, str]] = {
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
        "pin the new sum",
    ),
    "another-seed": (
        STORED | {"seed": 1},
        "OutputConflict",
        "holds the samples of another job: seed: 1, there 0",
        "another spec.output.uri",
    ),
    "no-bucket": (
        {"output": {"uri": "s3://no-such-bucket-anywhere/digits"}, "credentialsSecretRef": {"name": "s3"}},
        "StorageFailed",
        "there is no such bucket",
        "Create it",
    ),
}


@pytest.mark.draws_nothing
def test_what_can_never_begin_ends_at_once_and_what_may_yet_is_said_at_once(namespace: Namespace) -> None:
    late = WAIT | SILENT
    for name, (wrong, *_) in (NEVER_BEGIN | late).items():
        deadline = {"startupDeadlineSeconds": DEADLINE if name in late else 600}
        Sampling.apply(namespace, name, NEVER_RUNS | deadline | wrong)
    for name, (_, reason, *_) in WAIT.items():
        seen = Sampling(namespace, name).wait(ready_says(reason), f"{name} to say {reason}", SEEN_WITHIN)
        assert seen["status"]["phase"] == "Starting"
    for name, (_, *expected) in NEVER_BEGIN.items():
        told(failed(namespace, name), *expected)
    for name, (_, *expected) in late.items():
        status = failed(namespace, name)
        told(status, *expected)
        assert f"has not begun to sample within {DEADLINE}s" in status["failure"]["message"]
    nothing_is_left(namespace)


@pytest.mark.draws_nothing
def test_a_name_that_another_object_has_is_never_taken_from_it(namespace: Namespace, worker_image: str) -> None:
    later = Sampling.apply(namespace, "digits", ONE_TRY | {"suspend": True})
    seen = later.wait_for("Suspended")
    name = cluster_name(DDPMSampling.from_document(seen).metadata, 1)
    foreign = ray_cluster(name, worker_image)
    foreign["spec"]["suspend"] = True
    namespace.apply(foreign)
    Sampling.apply(namespace, "digits", ONE_TRY | {"suspend": False})
    where = f"a RayCluster {name} exists already and does not belong to this sampling"
    told(failed(namespace, "digits"), "InternalError", where, "look whose it is")
    assert "deletionTimestamp" not in namespace.get("ray.io/v1", "RayCluster", name)["metadata"]
    namespace.cluster.resource("ray.io/v1", "RayCluster").delete(name=name, namespace=namespace.name)
    nothing_is_left(namespace)


def test_what_the_driver_finds_wrong_is_the_samplings_failure(
    namespace: Namespace, s3_environment: dict[str, str]
) -> None:
    namespace.apply(claim("results"), secret("s3", s3_environment))
    Sampling.apply(namespace, "first", ONE_TRY | STORED).wait_until_complete(16)
    for name, (wrong, *_) in DRIVERS.items():
        Sampling.apply(namespace, name, ONE_TRY | wrong)
    for name, (_, reason, where, what_to_do) in DRIVERS.items():
        status = failed(namespace, name)
        told(status, reason, where, what_to_do)
        assert "--" not in status["failure"]["hint"]
    nothing_is_left(namespace)


def done(least: int, attempt: int) -> Condition:
    """So many samples are stored, and this attempt draws more."""

    def so_far(seen: Manifest) -> bool:
        status = seen.get("status", {})
        progress = status.get("progress", {}).get("done", 0)
        return bool(status.get("attempt") == attempt and status["phase"] == "Running" and progress >= least)

    return so_far


def failed_with(reason: str) -> Condition:
    def has(seen: Manifest) -> bool:
        status = seen["status"]
        return bool(status["phase"] == "Pending" and status.get("failure", {}).get("reason") == reason)

    return has


def waited(failed: Manifest, next_one: Manifest) -> timedelta:
    """From the failure in one status to the beginning of the attempt in the other."""
    begun, failure = next_one["cluster"]["startTime"], failed["failure"]["time"]
    return datetime.fromisoformat(begun) - datetime.fromisoformat(failure)


def evict(namespace: Namespace, name: str) -> None:
    """As whoever empties its node does."""
    meta = V1ObjectMeta(name=name, namespace=namespace.name)
    eviction = V1Eviction(metadata=meta, delete_options=V1DeleteOptions(grace_period_seconds=0))
    namespace.cluster.core.create_namespaced_pod_eviction(name, namespace.name, eviction)


def kill_the_driver(sampling: Sampling) -> Manifest:
    """The status, once its end is seen."""
    in_head = sampling.namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", KILL_THE_DRIVER)
    subprocess.run(in_head, check=True)
    status: Manifest = sampling.wait(failed_with("DriverFailed"), "the driver's end to be seen")["status"]
    assert "The driver was ended by SIGKILL" in status["failure"]["message"]
    assert "shards to sample" in status["failure"]["logTail"]
    return status


def kill_the_head(sampling: Sampling) -> Manifest:
    """The status, once its end is seen. As long as the pod is there, there is no next attempt."""
    head = head_of(sampling)["name"]
    with held(sampling.namespace, head):
        evict(sampling.namespace, head)
        status: Manifest = sampling.wait(failed_with("HeadLost"), "the head's end to be seen")["status"]
        assert f"The head pod {head} is lost: EvictionByEvictionAPI: " in status["failure"]["message"]
        sampling.wait(ready_says("WaitingForCleanUp"), "the next attempt to wait for the head to go")
        assert not sampling.namespace.list("ray.io/v1", "RayCluster")
    return status


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param([kill_the_head], id="a killed head"),
        pytest.param([kill_the_driver, kill_the_head], id="a killed driver and a killed head", marks=pytest.mark.long),
    ],
)
def test_what_is_stored_is_never_drawn_again_after(
    kills: list[Callable[[Sampling], Manifest]], namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    sampling = Sampling.apply(namespace, "digits", ONE_TRY | A_WHILE | {"backoffLimit": len(kills)})
    stored = 16
    for attempt, kill in enumerate(kills, 1):
        stored += 16
        sampling.wait(done(stored, attempt), f"{stored} to be stored", ENDS_WITHIN)
        lost = kill(sampling)
        assert lost["progress"]["done"] >= stored
        next_one = sampling.wait(done(stored + 16, attempt + 1), "the next attempt to draw more", ENDS_WITHIN)["status"]
        assert next_one["progress"]["done"] >= lost["progress"]["done"]
        assert waited(lost, next_one) >= timedelta(seconds=10 * 2 ** (attempt - 1))

    status = sampling.wait_for("Complete", ENDS_WITHIN)["status"]
    assert (status["attempt"], status["failedAttempts"], "failure" in status) == (
        len(kills) + 1,
        len(kills),
        False,
    )
    assert status["progress"]["done"] == 96
    nothing_is_left(namespace)
    [samples] = run_python(namespace, worker_image, DIGESTS, "/out/samples.npy", claim="digits-output")
    assert samples == local_samples(96, tmp_path, "--sampler", "ddpm", "--steps", "80", "--batch_size", "16")
    first, last = run_python(namespace, worker_image, SHARDS_IN_LOGS, claim="digits-output")
    assert (int(first), int(last) <= (96 - stored) // 16) == (6, True)


def test_a_batch_that_needs_more_memory_than_there_is_is_out_of_memory(namespace: Namespace) -> None:
    size = {"cpu": "1", "memory": "1536Mi"}
    spec = ONE_TRY | {"batchSize": 32_768, "resources": {"head": size, "worker": size, "maxWorkers": 0}}
    Sampling.apply(namespace, "large", spec)
    told(failed(namespace, "large"), "OutOfMemory", "memory", "memory")
    nothing_is_left(namespace)


@pytest.mark.long
def test_a_worker_that_the_kernel_ends_for_its_memory_is_told_from_others(
    namespace: Namespace, worker_image: str
) -> None:
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
    # Without Ray's own watch over memory, which is mostly quicker.
    container["env"] = [{"name": "RAY_memory_monitor_refresh_ms", "value": "0"}, {"name": "HOME", "value": "/tmp"}]
    namespace.apply(large)
    ended = namespace.wait("v1", "Pod", "large", lambda it: phase(it) == "Failed", ENDS_WITHIN, "large to end")
    [status] = ended["status"]["containerStatuses"]
    end, said = status["state"]["terminated"], namespace.logs("large")
    # On cgroup v2 the kernel ends the whole container, and nobody is left in it to say so. On v1 it ends the
    # worker alone, after which the kubelet may call whatever end the container has OOMKilled.
    if end["exitCode"] == KILLED:
        assert end["reason"] == "OOMKilled"
    else:
        error = json.loads(next(line for line in said.splitlines() if '"event": "error"' in line))
        assert (end["exitCode"], error["exitCode"], error["reason"]) == (4, 4, "OutOfMemory"), said
        assert "the kernel ended a worker" in error["message"]


def test_workers_that_die_again_and_again_are_given_up(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "digits", ONE_TRY | A_SHARD)
    sampling.wait(ready_says("Ready"), "a head")
    in_head = namespace.exec(head_of(sampling)["name"], "ray-head", "python", "-c", KILL_EVERY_WORKER)
    with subprocess.Popen(in_head):
        status = failed(namespace, "digits")
    told(status, "WorkerLost", "worker died: ", "`kubectl ddpm retry` draws the missing samples")
    nothing_is_left(namespace)
