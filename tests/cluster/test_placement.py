"""Later attempts on the hardware of the first, and the repair of damaged samples, on a real cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cluster.editor import editor_of
from tests.cluster.failures import cluster_ready_reason
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, local_samples, run_python
from tests.cluster.samplings import SMALL, Sampling, assert_nothing_left
from tests.cluster.test_kubectl_ddpm import User

DEADLINE_SECONDS = 45
DDPM = ("--sampler", "ddpm", "--steps", "60")
# A change that neither the size nor the time of the file shows.
FLIP_A_BIT = """
import os, pathlib, sys
path = min(pathlib.Path(sys.argv[1]).glob("*.npz"))
times, data = path.stat(), bytearray(path.read_bytes())
data[len(data) // 2] ^= 1
path.write_bytes(data)
os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
"""

pytestmark = pytest.mark.usefixtures("operator")


def patch(operator: Operator, sampling: Sampling, document: Manifest, *options: str) -> None:
    where = ("-n", sampling.namespace.name, "ddpmsampling", sampling.name)
    operator.run_kubectl("patch", *where, "--type=merge", *options, "-p", json.dumps(document))


def has_drawn(seen: Manifest) -> bool:
    status = seen.get("status", {})
    return bool(status.get("placement", {}).get("nodes")) and status["progress"]["done"] > 0


def is_suspended(seen: Manifest) -> bool:
    conditions = {it["type"]: it["status"] for it in seen["status"]["conditions"]}
    return conditions["Suspended"] == "True" == conditions["CleanedUp"]


def test_without_a_matching_node_it_is_queued_until_hardware_may_be_mixed(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path
) -> None:
    spec = SMALL | {
        "samples": 96,
        "sampler": {"name": "ddpm", "steps": 60},
        "backoffLimit": 0,
        "startupDeadlineSeconds": DEADLINE_SECONDS,
    }
    sampling = Sampling.apply(namespace, "digits", spec)
    placement = sampling.wait(has_drawn, "the first samples")["status"]["placement"]
    (drawn_on,) = placement["nodes"]
    (node,) = [it for it in namespace.cluster.core.list_node().items if it.metadata.name == drawn_on]
    architecture = node.metadata.labels["kubernetes.io/arch"]
    assert placement["nodeLabels"]["kubernetes.io/arch"] == [architecture]

    # As if the driver had found other hardware on every node of the cluster.
    patch(operator, sampling, {"spec": {"suspend": True}})
    sampling.wait(is_suspended, "its suspension")
    names = [it.metadata.name for it in namespace.cluster.core.list_node().items]
    patch(operator, sampling, {"status": {"placement": {"excludedNodes": names}}}, "--subresource=status")
    patch(operator, sampling, {"spec": {"suspend": False}})
    waiting = sampling.wait(cluster_ready_reason("WaitingForHardware"), "a node with the hardware")["status"]
    assert (waiting["phase"], waiting["failedAttempts"]) == ("Queued", 0)
    (message,) = [it["message"] for it in waiting["conditions"] if it["type"] == "ClusterReady"]
    assert f"kubernetes.io/arch={architecture}" in message
    assert drawn_on in message
    assert "spec.resources.allowMixedHardware: true" in message
    assert_nothing_left(namespace)

    patch(operator, sampling, {"spec": {"resources": {"allowMixedHardware": True}}})
    sampling.wait_until_complete(96)
    stored = run_python(namespace, worker_image, DIGESTS, "/out/samples.npy", claim="digits-output")
    assert stored == [local_samples(96, tmp_path, *DDPM)]


def test_retry_with_repair_draws_a_damaged_shard_again(namespace: Namespace, worker_image: str, tmp_path: Path) -> None:
    user = User({**os.environ, "KUBECONFIG": str(editor_of(namespace, tmp_path))})
    sampling = Sampling.apply(namespace, "digits", SMALL)
    first = sampling.wait_until_complete(16)["status"]
    run_python(namespace, worker_image, FLIP_A_BIT, "/out/shards", claim="digits-output")
    found = user.ddpm("verify", "digits")
    assert found.returncode == 4, found.stderr
    assert "shards/000000000-000000015.npz has another sha256" in found.stdout
    assert "`kubectl ddpm retry digits --repair`" in found.stderr

    user.run("retry", "digits", "--repair")
    sampling.wait(lambda seen: seen["status"].get("repaired") == 1, "its repair")
    status = sampling.wait_until_complete(16)["status"]
    assert (status["attempt"], status["failedAttempts"]) == (2, 0)
    assert status["output"]["manifestSha256"] == first["output"]["manifestSha256"]
    user.run("verify", "digits")
    stored = run_python(namespace, worker_image, DIGESTS, "/out/samples.npy", claim="digits-output")
    assert stored == [local_samples(16, tmp_path)]
