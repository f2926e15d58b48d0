"""A head that runs a hostile program: it fails its own sampling, and affects nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_operator.api import Metadata
from ddpm_operator.manifests.naming import labels
from tests.cluster import fake_head
from tests.cluster.disruptions import scaled_to_zero
from tests.cluster.kube import Manifest, Namespace, has_condition
from tests.cluster.manifests import pod
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, END_TIMEOUT, KIND, LIGHT, Sampling, cluster_of

PROGRAM = Path(fake_head.__file__).read_text()


def fake_head_pod(of: Manifest, cluster: str, image: str) -> Manifest:
    """Returns a pod that the operator takes for the head of a sampling's first attempt."""
    metadata = Metadata(name=of["metadata"]["name"], uid=of["metadata"]["uid"])
    manifest = pod("fake-head", image, ["python", "-c", PROGRAM, cluster])
    manifest["metadata"]["labels"] = labels(metadata, 1) | {
        "ray.io/cluster": cluster,
        "ray.io/node-type": "head",
    }
    return manifest


@pytest.mark.long
@pytest.mark.alone
def test_a_hostile_head_fails_only_its_own_sampling(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    restarts = operator.restarts()
    with (
        scaled_to_zero(namespace.cluster, "kuberay-operator"),
        namespace.cluster.namespace(f"{namespace.name}-other") as other,
    ):
        sampling = Sampling.apply(namespace, "digits", LIGHT | {"backoffLimit": 0})
        cluster = cluster_of(sampling)
        namespace.apply(fake_head_pod(sampling.get(), cluster, worker_image))
        failed = sampling.namespace.wait(
            API, KIND, "digits", has_condition("Failed"), END_TIMEOUT, "the sampling with the fake head to fail"
        )
        Sampling.apply(other, "digits", LIGHT | {"suspend": True}).wait_for("Suspended")
        assert failed["status"]["failure"]["reason"] == "DriverFailed"
    assert operator.restarts() == restarts
