"""A head that is somebody's own program, on a real cluster: it spoils its own sampling, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_operator.api import Metadata
from ddpm_operator.manifests.naming import labels
from tests.cluster import impostor
from tests.cluster.hindrances import without
from tests.cluster.kube import Manifest, Namespace, has_condition
from tests.cluster.manifests import pod
from tests.cluster.operator_release import Operator
from tests.cluster.samplings import API, ENDS_WITHIN, KIND, LIGHT, Sampling, cluster_of

PROGRAM = Path(impostor.__file__).read_text()


def posing_as_head(of: Manifest, cluster: str, image: str) -> Manifest:
    """A pod that the operator takes for the head of a sampling's first attempt."""
    metadata = Metadata(name=of["metadata"]["name"], uid=of["metadata"]["uid"])
    manifest = pod("impostor", image, ["python", "-c", PROGRAM, cluster])
    manifest["metadata"]["labels"] = labels(metadata, 1) | {
        "ray.io/cluster": cluster,
        "ray.io/node-type": "head",
    }
    return manifest


@pytest.mark.long
@pytest.mark.alone
def test_a_head_that_lists_thousands_of_failed_jobs_and_drips_their_logs_ends_its_own_sampling_alone(
    namespace: Namespace, operator: Operator, worker_image: str
) -> None:
    restarts = operator.restarts()
    with (
        without(namespace.cluster, "kuberay-operator"),
        namespace.cluster.namespace(f"{namespace.name}-other") as other,
    ):
        sampling = Sampling.apply(namespace, "digits", LIGHT | {"backoffLimit": 0})
        cluster = cluster_of(sampling)
        namespace.apply(posing_as_head(sampling.now(), cluster, worker_image))
        failed = sampling.namespace.wait(
            API, KIND, "digits", has_condition("Failed"), ENDS_WITHIN, "the sampling of the impostor to fail"
        )
        Sampling.apply(other, "digits", LIGHT | {"suspend": True}).wait_for("Suspended")
        assert failed["status"]["failure"]["reason"] == "DriverFailed"
    assert operator.restarts() == restarts
