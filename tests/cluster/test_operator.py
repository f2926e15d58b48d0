"""The operator on a real cluster: samplings from apply to completion, growth, deletion, restarts of the operator."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import COLLECTED
from tests.cluster.disruptions import scaled_to_zero
from tests.cluster.kube import Manifest, Namespace
from tests.cluster.manifests import secret
from tests.cluster.operator_release import Operator
from tests.cluster.results import DIGESTS, MAKE_BUCKET, local_samples, run_python
from tests.cluster.samplings import (
    API,
    DELETION_TIMEOUT,
    END_TIMEOUT,
    KIND,
    LIGHT,
    LONG,
    OPERATOR_SELECTOR,
    SMALL,
    Sampling,
    assert_nothing_left,
    cluster_of,
)

HEADS = "ray.io/node-type=head"
KEPT_CLAIM = {"claim": {"size": "1Gi"}}

pytestmark = pytest.mark.usefixtures("operator")


def conditions(seen: Manifest) -> dict[str, str]:
    return {one["type"]: one["status"] for one in seen["status"]["conditions"]}


def reasons_of_events(namespace: Namespace, name: str) -> list[str]:
    events = namespace.list("events.k8s.io/v1", "Event")
    about = [event for event in events if event["regarding"].get("name") == name]
    return [event["reason"] for event in sorted(about, key=lambda event: event["eventTime"] or "")]


def record_duration(seconds: float, what: str) -> None:
    """Records the time from apply to Complete, to compare with RayJob; no test depends on it."""
    COLLECTED.mkdir(parents=True, exist_ok=True)
    record = {"seconds": round(seconds, 1), "load": round(os.getloadavg()[0], 1), "cpus": os.cpu_count()}
    (COLLECTED / f"{what}.json").write_text(json.dumps(record) + "\n")


def test_a_sampling_stores_images_on_a_claim_and_cleans_up(
    namespace: Namespace, worker_image: str, tmp_path: Path
) -> None:
    # A foreign ConfigMap with a name that the preview could have had.
    namespace.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits-preview"}})
    foreign = namespace.get("v1", "ConfigMap", "digits-preview")["metadata"]
    began = time.monotonic()
    sampling = Sampling.apply(namespace, "digits", SMALL)
    complete = sampling.wait_for("Complete")
    record_duration(time.monotonic() - began, "sampling")
    status = sampling.wait_until_complete(16)["status"]

    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    assert conditions(complete) | {"CleanedUp": ""} == {
        "Accepted": "True",
        "ClusterReady": "False",
        "Running": "False",
        "Complete": "True",
        "Failed": "False",
        "Suspended": "False",
        "CleanedUp": "",
    }
    assert (status["progress"]["done"], status["progress"]["percent"]) == (16, 100)
    assert "ddpm-ray-worker@sha256:" in status["image"]
    assert status["plan"]["why"]
    assert_nothing_left(namespace)

    samples, manifest = run_python(
        namespace, worker_image, DIGESTS, "/out/samples.npy", "/out/manifest.json", claim="digits-output"
    )
    assert samples == local_samples(16, tmp_path)
    assert manifest == status["output"]["manifestSha256"]
    preview = namespace.get("v1", "ConfigMap", status["output"]["grid"])
    picture = base64.b64decode(preview["binaryData"]["grid.png"])
    assert picture.startswith(b"\x89PNG")
    assert len(picture) <= 48 * 1024
    (owner,) = preview["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("DDPMSampling", "digits")
    reasons = [reason for reason in reasons_of_events(namespace, "digits") if reason != "Started"]
    assert reasons == ["Accepted", "ClusterCreated", "Completed", "ClusterDeleted"]

    sampling.delete()
    sampling.wait_until_gone()
    namespace.wait_for_none("v1", "ConfigMap", DELETION_TIMEOUT, OPERATOR_SELECTOR)
    found = namespace.get("v1", "ConfigMap", "digits-preview")["metadata"]
    assert (found["uid"], found["resourceVersion"]) == (foreign["uid"], foreign["resourceVersion"])
    assert "ownerReferences" not in found


def two_have_a_node(pods: list[Manifest]) -> bool:
    return [bool(pod["spec"].get("nodeName")) for pod in pods] == [True, True]


def test_two_samplings_at_once_one_to_s3(
    namespace: Namespace, worker_image: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    bucket = f"ddpm-test-{secrets.token_hex(4)}"
    namespace.apply(secret("s3", s3_environment))
    run_python(namespace, worker_image, MAKE_BUCKET, bucket, env_from="s3")
    stored = {"output": {"uri": f"s3://{bucket}/digits"}, "credentialsSecretRef": {"name": "s3"}}

    samplings = [
        Sampling.apply(namespace, "stored", LIGHT | stored),
        Sampling.apply(namespace, "claimed", LIGHT | {"samples": 8}),
    ]
    # Both run at once: neither waits for the other.
    namespace.wait_for_all("v1", "Pod", two_have_a_node, END_TIMEOUT, "both heads to be on a node", HEADS)
    ended = [it.wait_until_complete(samples) for it, samples in zip(samplings, (16, 8), strict=True)]
    uris = [seen["status"]["output"]["uri"] for seen in ended]
    assert uris == [f"s3://{bucket}/digits", "pvc://claimed-output"]
    assert_nothing_left(namespace)
    uri = f"s3://{bucket}/digits/samples.npy"
    assert run_python(namespace, worker_image, DIGESTS, uri, env_from="s3") == [local_samples(16, tmp_path)]


@pytest.mark.operator_killed
def test_samples_grow_while_running_and_when_complete(
    namespace: Namespace, operator: Operator, worker_image: str, tmp_path: Path
) -> None:
    spec = SMALL | {"samples": 64, "sampler": {"name": "ddpm", "steps": 60}}
    sampling = Sampling.apply(namespace, "digits", spec)
    sampling.wait_for("Running")
    Sampling.apply(namespace, "digits", spec | {"samples": 80})
    operator.kill()
    assert sampling.wait_until_complete(80)["status"]["attempt"] == 1
    Sampling.apply(namespace, "digits", spec | {"samples": 96})
    status = sampling.wait_until_complete(96)["status"]
    assert status["progress"]["done"] == 96
    assert_nothing_left(namespace)
    stored = run_python(namespace, worker_image, DIGESTS, "/out/samples.npy", claim="digits-output")
    assert stored == [local_samples(96, tmp_path, "--sampler", "ddpm", "--steps", "60")]


@pytest.mark.parametrize(("condition", "finalizers"), [("Accepted", []), ("Running", ["example.com/keeps-it"])])
def test_deletion_removes_the_cluster_even_with_a_finalizer(
    namespace: Namespace, condition: str, finalizers: list[str]
) -> None:
    metadata = {"name": "digits", "finalizers": finalizers}
    namespace.apply({"apiVersion": API, "kind": KIND, "metadata": metadata, "spec": LONG})
    sampling = Sampling(namespace, "digits")
    try:
        sampling.wait_for(condition)
        sampling.delete()
        assert_nothing_left(namespace)
        assert [it["metadata"]["name"] for it in namespace.list(API, KIND)] == ["digits"] * len(finalizers)
    finally:
        if finalizers:
            sampling.remove_finalizers()
    sampling.wait_until_gone()
    namespace.wait_for_none("v1", "PersistentVolumeClaim", 60)


@pytest.mark.operator_killed
def test_a_restarted_operator_resumes_and_applies_the_ttl(namespace: Namespace, operator: Operator) -> None:
    sampling = Sampling.apply(namespace, "digits", SMALL | {"output": KEPT_CLAIM, "ttlSecondsAfterFinished": 5})
    sampling.wait_for("Accepted")
    operator.kill()
    status = sampling.wait_for("Complete")["status"]
    assert (status["attempt"], status["progress"]["done"]) == (1, 16)
    sampling.wait_until_gone()
    assert_nothing_left(namespace)
    assert namespace.get("v1", "PersistentVolumeClaim", "digits-output")["status"]["phase"] == "Bound"

    # Submitted again, it finds the stored samples.
    again = Sampling.apply(namespace, "digits", SMALL | {"output": KEPT_CLAIM}).wait_until_complete(16)["status"]
    assert again["output"]["manifestSha256"] == status["output"]["manifestSha256"]


@pytest.mark.operator_away
def test_a_sampling_can_be_deleted_without_the_operator(namespace: Namespace, operator: Operator) -> None:
    sampling = Sampling.apply(namespace, "digits", LONG)
    sampling.wait_for("Running")
    operator.uninstall()
    try:
        sampling.delete()
        sampling.wait_until_gone()
        assert_nothing_left(namespace)
        # The key stays, for the next release of this name.
        left = operator.namespace.list("v1", "Secret", OPERATOR_SELECTOR)
        assert [it["metadata"]["name"] for it in left] == [f"{operator.release}-operator-key"]
    finally:
        operator.install()


def orphan(sampling: Sampling) -> None:
    """Deletes it with propagation policy Orphan, which keeps the objects that it owns."""
    resource = sampling.namespace.cluster.resource(API, KIND)
    resource.delete(name=sampling.name, namespace=sampling.namespace.name, body={"propagationPolicy": "Orphan"})
    sampling.wait_until_gone()


def test_an_orphaned_cluster_is_deleted(namespace: Namespace) -> None:
    sampling = Sampling.apply(namespace, "digits", LONG)
    sampling.wait_for("Running")
    orphan(sampling)
    assert_nothing_left(namespace)


@pytest.mark.long
@pytest.mark.operator_away
def test_a_restarted_operator_deletes_orphaned_clusters(namespace: Namespace, operator: Operator) -> None:
    sampling = Sampling.apply(namespace, "digits", LONG)
    name = cluster_of(sampling)
    namespace.wait("ray.io/v1", "RayCluster", name, bool, DELETION_TIMEOUT, "the RayCluster")
    with scaled_to_zero(namespace.cluster, f"{operator.release}-operator"):
        orphan(sampling)
        namespace.wait(
            "ray.io/v1", "RayCluster", name, has_no_owner, DELETION_TIMEOUT, "the RayCluster to have no owner"
        )
    assert_nothing_left(namespace)


def has_no_owner(seen: Manifest) -> bool:
    return bool(seen) and not seen["metadata"].get("ownerReferences")
