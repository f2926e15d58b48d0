"""Several workers: their resources and scheduling, and that the samples stay the same."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.failures import assert_failure, wait_for_failure
from tests.cluster.kube import Manifest, Namespace, has_condition
from tests.cluster.manifests import secret
from tests.cluster.nodes import HOSTNAME, TAINT, fake_gpus, nodes_without_kubelets
from tests.cluster.ray_api import RayApi
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import LONG, SMALL, Sampling, assert_nothing_left, token_of

GPU = "nvidia.com/gpu"
SCHEDULING_TIMEOUT = 60.0
READY_TIMEOUT = 90.0
STORE_CHECKPOINT = """
import s3fs, sys
from ddpm_inference.checkpoint import fetch
bucket = s3fs.S3FileSystem()
bucket.mkdir(sys.argv[1])
bucket.pipe_file(f"{sys.argv[1]}/mnist.safetensors", fetch("builtin://mnist"))
"""

# In one group: the three pods of one test leave room for one other sampling on a node with two CPUs.
pytestmark = [pytest.mark.usefixtures("operator"), pytest.mark.xdist_group("sizing")]


def resources_of(cpu: str, workers: int, **more: Any) -> Manifest:  # noqa: ANN401 - as YAML has them
    """Returns resources with workers of so much CPU and a small head."""
    head, worker = ({"cpu": each, "memory": "2Gi"} for each in ("250m", cpu))
    return {"head": head, "worker": worker, "maxWorkers": workers, **more}


def claims(pod: Manifest) -> list[str]:
    volumes = pod["spec"]["volumes"]
    return [it["persistentVolumeClaim"]["claimName"] for it in volumes if "persistentVolumeClaim" in it]


def by_role(pods: list[Manifest]) -> dict[str, list[Manifest]]:
    roles: dict[str, list[Manifest]] = {"head": [], "worker": []}
    for pod in pods:
        roles[pod["metadata"]["labels"]["ray.io/node-type"]].append(pod)
    return roles


def uids(pods: list[Manifest]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def delete_at_once(namespace: Namespace, pods: list[Manifest]) -> None:
    for pod in pods:
        namespace.cluster.core.delete_namespaced_pod(pod["metadata"]["name"], namespace.name, grace_period_seconds=0)


def for_two_workers(namespace: Namespace, worker_image: str, s3_environment: dict[str, str]) -> Manifest:
    """Returns the spec of a sampling with three shards, and a checkpoint and credentials of a bucket."""
    bucket = f"ddpm-test-{secrets.token_hex(4)}"
    namespace.apply(secret("s3", s3_environment))
    run_python(namespace, worker_image, STORE_CHECKPOINT, bucket, env_from="s3")
    # The operator cannot read this checkpoint, so it assumes larger images and plans more workers.
    return SMALL | {
        "model": {"uri": f"s3://{bucket}/mnist.safetensors"},
        "samples": 96,
        "sampler": {"name": "ddpm", "steps": 100},
        "resources": resources_of("400m", workers=2),
        "credentialsSecretRef": {"name": "s3"},
    }


@pytest.mark.long
def test_workers_send_shards_to_the_head_and_are_replaced(
    namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    spec = for_two_workers(namespace, worker_image, s3_environment)
    sampling = Sampling.apply(namespace, "digits", spec)
    sampling.wait(lambda seen: seen.get("status", {}).get("progress", {}).get("done", 0) > 0, "the first shard")
    pods = by_role(namespace.list("v1", "Pod", "ray.io/node-type"))
    assert [len(pods["head"]), len(pods["worker"])] == [1, 2]
    assert [claims(pod) for pod in (*pods["head"], *pods["worker"])] == [["digits-output"], [], []]
    delete_at_once(namespace, pods["worker"])
    former = uids(pods["worker"])
    namespace.wait_for_all(
        "v1",
        "Pod",
        lambda seen: len(uids(seen)) == 2 and not uids(seen) & former,
        SCHEDULING_TIMEOUT,
        "two other workers",
        "ray.io/node-type=worker",
    )

    status = sampling.wait_until_complete(96)["status"]
    assert (status["plan"]["workers"], status["plan"]["shards"]) == (2, 3)
    assert (status["attempt"], status.get("failedAttempts", 0)) == (1, 0)
    assert_nothing_left(namespace)
    found = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    samples = local_samples(96, tmp_path, "--sampler", "ddpm", "--steps", "100")
    assert found == [samples, status["output"]["manifestSha256"]]


@pytest.mark.long
def test_lost_workers_that_cannot_be_replaced_fail_with_the_cause(
    namespace: Namespace,
) -> None:
    spec = LONG | {
        "sampler": {"name": "ddpm", "steps": 100},
        "resources": resources_of("400m", workers=2),
        "startupDeadlineSeconds": 60,
        "backoffLimit": 0,
    }
    sampling = Sampling.apply(namespace, "digits", spec)
    sampling.wait(lambda seen: seen.get("status", {}).get("progress", {}).get("done", 0) > 0, "the first shard")
    few = {"metadata": {"name": "few"}, "spec": {"hard": {"count/pods": "1"}}}
    namespace.apply({"apiVersion": "v1", "kind": "ResourceQuota", **few})
    namespace.wait(
        "v1", "ResourceQuota", "few", lambda it: bool(it["status"].get("used")), SCHEDULING_TIMEOUT, "a count"
    )
    delete_at_once(namespace, by_role(namespace.list("v1", "Pod", "ray.io/node-type"))["worker"])

    status = wait_for_failure(namespace, "digits")
    assert_failure(status, "WorkerLost", "No node has had room for a worker for 60 s", "draws the missing samples")
    assert "KubeRay cannot create the pods" in status["failure"]["message"]
    assert "exceeded quota: few" in status["failure"]["message"]
    assert status["progress"]["done"] > 0


@pytest.mark.long
def test_two_workers_and_a_bucket_give_the_same_samples(
    namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    spec = for_two_workers(namespace, worker_image, s3_environment)
    uri = spec["model"]["uri"].replace("mnist.safetensors", "digits")
    status = Sampling.apply(namespace, "digits", spec | {"output": {"uri": uri}}).wait_until_complete(96)["status"]
    assert (status["plan"]["workers"], status["attempt"], status["output"]["uri"]) == (2, 1, uri)
    assert_nothing_left(namespace)
    files = [f"{uri}/samples.npy", f"{uri}/manifest.json"]
    found = run_python(namespace, worker_image, DIGESTS, *files, env_from="s3")
    samples = local_samples(96, tmp_path, "--sampler", "ddpm", "--steps", "100")
    assert found == [samples, status["output"]["manifestSha256"]]


@pytest.mark.long
def test_large_growth_creates_a_larger_cluster(namespace: Namespace) -> None:
    spec = SMALL | {"sampler": {"name": "ddpm", "steps": 300}, "resources": resources_of("400m", workers=2)}
    sampling = Sampling.apply(namespace, "digits", spec | {"samples": 32})
    alone = sampling.wait_for("Running")["status"]
    assert (alone["attempt"], alone["plan"]["workers"]) == (1, 0)
    Sampling.apply(namespace, "digits", spec | {"samples": 4096})

    def runs_again(seen: Manifest) -> bool:
        return bool(seen["status"]["attempt"] == 2 and has_condition("Running")(seen))

    status = sampling.wait(runs_again, "the second attempt to run")["status"]
    assert (status["plan"]["workers"], status["failedAttempts"]) == (2, 0)
    assert status["progress"]["done"] >= 32
    pods = by_role(namespace.list("v1", "Pod", "ray.io/node-type"))
    assert [len(pods["head"]), len(pods["worker"])] == [1, 2]
    sampling.delete()
    sampling.wait_until_gone()
    assert_nothing_left(namespace)


def test_workers_request_gpus_and_report_that_torch_sees_none(
    namespace: Namespace,
) -> None:
    resources = resources_of("400m", workers=2, gpus=4, tasksPerGPU=2)
    spec = SMALL | {
        "samples": 32,
        "batchSize": 4,
        "resources": resources,
        "backoffLimit": 0,
        "keepClusterSeconds": 600,
    }
    with fake_gpus(namespace.cluster, GPU, 4):
        sampling = Sampling.apply(namespace, "digits", spec)
        status = sampling.wait_for("Failed")["status"]
        plan = {name: status["plan"][name] for name in ("device", "workers", "gpus", "tasksPerGPU", "shards")}
        assert plan == {"device": "cuda", "workers": 2, "gpus": 4, "tasksPerGPU": 2, "shards": 8}
        assert status["failure"]["reason"] == "Unschedulable"
        assert "Ray assigned a GPU to a worker, but torch" in status["failure"]["message"]
        assert "CUDA build of torch" in status["failure"]["hint"]

        # It fails with the first worker; the other may still be starting in the cluster that is kept.
        ready = namespace.wait_for_all(
            "v1",
            "Pod",
            lambda seen: [has_condition("Ready")(pod) for pod in seen] == [True] * 3,
            READY_TIMEOUT,
            "3 pods",
        )
        pods = by_role(ready)
        requested = [pod["spec"]["containers"][0]["resources"]["requests"].get(GPU) for pod in pods["worker"]]
        assert requested == ["2", "2"]
        assert GPU not in pods["head"][0]["spec"]["containers"][0]["resources"]["requests"]
        cluster = pods["head"][0]["metadata"]["labels"]["ray.io/cluster"]
        token = token_of(namespace, cluster, "auth_token")
        with namespace.port_forward(f"service/{cluster}-head-svc", ":8265") as ports:
            assert RayApi(ports[8265], token).gpus() == [0, 2, 2]

        Sampling.apply(namespace, "digits", spec | {"keepClusterSeconds": 0})
        assert_nothing_left(namespace)


@pytest.mark.draws_nothing
def test_topology_spread_constraints_are_applied(namespace: Namespace) -> None:
    spread = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule"}
    spec = SMALL | {
        "samples": 4096,
        "sampler": {"name": "ddpm"},
        "resources": resources_of("1", workers=2),
        "output": {"uri": "s3://unused/digits"},
        "podOverrides": {
            "nodeSelector": {TAINT: namespace.name},
            "tolerations": [{"key": TAINT, "operator": "Exists"}],
            "topologySpreadConstraints": [spread],
        },
    }
    with nodes_without_kubelets(namespace.cluster, namespace.name, 3) as nodes:
        sampling = Sampling.apply(namespace, "digits", spec)
        pods = namespace.wait_for_all(
            "v1",
            "Pod",
            lambda seen: [bool(pod["spec"].get("nodeName")) for pod in seen] == [True] * 3,
            SCHEDULING_TIMEOUT,
            "three scheduled pods",
        )
        assert sorted(pod["spec"]["nodeName"] for pod in pods) == nodes
        sampling.delete()
        sampling.wait_until_gone()
        # There is no kubelet to report that the pods have ended.
        namespace.cluster.core.delete_collection_namespaced_pod(namespace.name, grace_period_seconds=0)
        assert_nothing_left(namespace)
