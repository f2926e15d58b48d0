"""What an administrator allows samplings to name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml

from ddpm_operator.api import ConditionType, DDPMSampling, FailureReason, Spec
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import UNLIMITED, Limits
from ddpm_operator.reconcile.actions import CreateCluster
from ddpm_operator.reconcile.observed import Observed
from ddpm_operator.reconcile.reconcile import reconcile
from hack.chart_readme import CHART

MakeSpec = Callable[..., Spec]

_VALUES = yaml.safe_load((CHART / "values.yaml").read_text())["allowed"]
CHARTS = Limits(pod_labels=tuple(_VALUES["podLabels"]), pod_annotations=tuple(_VALUES["podAnnotations"]))
NOTHING = Limits(
    images=(),
    service_accounts=(),
    priority_classes=(),
    runtime_classes=(),
    gpu_resource_names=(),
    pod_labels=(),
    pod_annotations=(),
    uri_schemes=("builtin",),
)


@pytest.mark.parametrize(
    ("allowed", "image", "may"),
    [
        ("*", "anything:1", True),
        ("registry.example.com/ddpm/", "registry.example.com/ddpm/worker:1", True),
        ("registry.example.com/ddpm/", "registry.example.com/ddpm/gpu/worker@sha256:" + "0" * 64, True),
        ("registry.example.com/ddpm/", "registry.example.com/ddpm-evil/worker:1", False),
        ("registry.example.com/", "registry.example.com.evil.org/worker:1", False),
        ("registry.example.com/ddpm/worker", "registry.example.com/ddpm/worker:2", True),
        ("registry.example.com/ddpm/worker", "registry.example.com/ddpm/worker@sha256:" + "0" * 64, True),
        ("registry.example.com/ddpm/worker", "registry.example.com/ddpm/worker-2:1", False),
        ("registry.example.com:5000/worker", "registry.example.com:5000/worker:1", True),
        ("registry.example.com:5000/worker", "registry.example.com:6000/worker:1", False),
        ("registry.example.com/worker:1", "registry.example.com/worker:1", True),
        ("registry.example.com/worker:1", "registry.example.com/worker:2", False),
        ("registry.example.com/worker:1", "registry.example.com/worker:1@sha256:" + "0" * 64, False),
        ("team/", "docker.io/team/worker:1", True),
        ("team/", "team/worker:1", True),
        ("worker", "docker.io/library/worker:1", True),
        ("team/", "registry.example.com/team/worker:1", False),
    ],
)
def test_an_image_is_allowed_by_its_repository_its_tag_or_the_folder_it_is_in(
    make_spec: MakeSpec, allowed: str, image: str, may: bool
) -> None:
    assert (Limits(images=(allowed,)).objection(make_spec(image=image)) is None) is may


def test_the_default_image_may_be_named_whatever_else_is_allowed(make_spec: MakeSpec) -> None:
    limits = Limits(images=("registry.example.com/",), default_image="ddpm-ray-worker:dev")
    assert limits.objection(make_spec(image="ddpm-ray-worker:dev")) is None
    assert limits.objection(make_spec(image="ddpm-ray-worker:other"))


@pytest.mark.parametrize(
    ("limits", "fields", "says"),
    [
        (Limits(images=()), {"image": "worker:1"}, "spec.image says worker:1"),
        (
            Limits(service_accounts=("sampler",)),
            {"podOverrides": {"serviceAccountName": "admin"}},
            "spec.podOverrides.serviceAccountName says admin",
        ),
        (
            Limits(key_secret="ddpm-ray-operator-key"),
            {"credentialsSecretRef": {"name": "ddpm-ray-operator-key"}},
            "spec.credentialsSecretRef names ddpm-ray-operator-key, which is the operator's own key.",
        ),
        (
            Limits(priority_classes=("batch",)),
            {"podOverrides": {"priorityClassName": "system-node-critical"}},
            "spec.podOverrides.priorityClassName says system-node-critical",
        ),
        (
            Limits(runtime_classes=("gvisor",)),
            {"podOverrides": {"runtimeClassName": "host"}},
            "spec.podOverrides.runtimeClassName says host",
        ),
        (
            Limits(gpu_resource_names=("nvidia.com/gpu",)),
            {"resources": {"gpus": 1, "gpuResourceName": "devices.kubevirt.io/kvm"}},
            "spec.resources.gpuResourceName says devices.kubevirt.io/kvm",
        ),
        (
            Limits(pod_labels=("plain words", "example.com/")),
            {"podOverrides": {"labels": {"team": "vision", "azure.workload.identity/use": "true"}}},
            "spec.podOverrides.labels says azure.workload.identity/use",
        ),
        (
            Limits(pod_annotations=("plain words", "example.com/")),
            {"podOverrides": {"annotations": {"example.com/note": "x", "k8s.ovn.org/pod-networks": "{}"}}},
            "spec.podOverrides.annotations says k8s.ovn.org/pod-networks",
        ),
        (
            Limits(uri_schemes=("builtin",)),
            {"model": {"uri": "https://host/m.pt"}},
            "spec.model.uri says https://",
        ),
        (
            Limits(uri_schemes=("builtin", "pvc")),
            {"output": {"uri": "s3://bucket/digits"}},
            "spec.output.uri says s3://",
        ),
    ],
)
def test_what_is_not_allowed_is_named_with_its_field(
    make_spec: MakeSpec, limits: Limits, fields: dict[str, object], says: str
) -> None:
    spec = make_spec(**fields)
    objection = limits.objection(spec)
    assert objection
    assert objection.message.startswith(says)
    assert "allowed" in objection.hint or "needs another" in objection.hint
    assert UNLIMITED.objection(spec) is None


def test_a_sampling_that_names_nothing_gets_what_the_operator_has() -> None:
    spec = Spec.from_document({"model": {"uri": "builtin://mnist"}, "samples": 1})
    assert NOTHING.objection(spec) is None


def test_a_scheme_that_nothing_reads_yet_gets_no_cluster_whatever_is_allowed(make_spec: MakeSpec) -> None:
    objection = UNLIMITED.objection(make_spec(model={"uri": "gs://models/unet.safetensors"}))
    assert objection
    assert objection.message == "spec.model.uri says gs://, which is reserved: no driver reads it yet."
    assert "s3://, https:// or a claim" in objection.hint


def test_a_name_that_is_allowed_may_be_said(make_spec: MakeSpec) -> None:
    limits = replace(
        NOTHING,
        service_accounts=("sampler",),
        priority_classes=("low", "batch"),
        runtime_classes=("gvisor",),
        gpu_resource_names=("nvidia.com/mig-1g.5gb",),
    )
    spec = make_spec(
        resources={"gpus": 1, "gpuResourceName": "nvidia.com/mig-1g.5gb"},
        podOverrides={
            "serviceAccountName": "sampler",
            "priorityClassName": "batch",
            "runtimeClassName": "gvisor",
        },
    )
    assert limits.objection(spec) is None


@pytest.mark.parametrize(
    ("allowed", "key", "may"),
    [
        ("*", "k8s.ovn.org/pod-networks", True),
        ("plain words", "team", True),
        ("plain words", "cost-centre_2", True),
        ("plain words", "example.com/team", False),
        ("plain words", "io.kubernetes.cri-o.Devices", False),
        ("plain words", "aadpodidbinding", False),
        ("aadpodidbinding", "aadpodidbinding", True),
        ("example.com/", "example.com/team", True),
        ("example.com/", "www.example.com/team", False),
        ("example.com/", "example.com", False),
        ("example.com/team", "example.com/team", True),
        ("example.com/team", "example.com/team-2", False),
    ],
)
def test_a_key_is_allowed_by_itself_its_domain_or_as_a_plain_word(
    make_spec: MakeSpec, allowed: str, key: str, may: bool
) -> None:
    assert (Limits(pod_labels=(allowed,)).objection(make_spec(podOverrides={"labels": {key: "a"}})) is None) is may
    spec = make_spec(podOverrides={"annotations": {key: "a"}})
    assert (Limits(pod_annotations=(allowed,)).objection(spec) is None) is may


@pytest.mark.parametrize(
    "key",
    [
        "cni.projectcalico.org/ipAddrsNoIpam",
        "k8s.ovn.org/pod-networks",
        "io.cilium.proxy-visibility",
        "io.kubernetes.cri-o.Devices",
        "io.katacontainers.config.hypervisor.path",
        "sidecar.istio.io/proxyImage",
        "iam.amazonaws.com/role",
        "azure.workload.identity/use",
        "aadpodidbinding",
    ],
)
def test_what_a_network_a_runtime_or_a_cloud_obeys_is_no_key_of_a_users(make_spec: MakeSpec, key: str) -> None:
    """With the values that the chart comes with."""
    assert CHARTS.objection(make_spec(podOverrides={"labels": {"team": "a"}, "annotations": {"note": "a"}})) is None
    for field, value in (("labels", "podLabels"), ("annotations", "podAnnotations")):
        objection = CHARTS.objection(make_spec(podOverrides={field: {key: "a"}}))
        assert objection
        assert key in objection.message
        assert f"allowed.{value}" in objection.hint


def test_the_name_of_a_gpu_matters_only_where_there_is_one(make_spec: MakeSpec) -> None:
    assert NOTHING.objection(make_spec(resources={"gpuResourceName": "nvidia.com/gpu"})) is None


def test_a_sampling_beyond_the_limits_fails_with_a_hint_and_gets_no_cluster() -> None:
    sampling = DDPMSampling.from_document(
        {
            "apiVersion": "ddpm-ray.io/v1alpha1",
            "kind": "DDPMSampling",
            "metadata": {"name": "digits", "namespace": "research", "uid": "0e2f7b1c", "resourceVersion": "1"},
            "spec": {"model": {"uri": "builtin://mnist"}, "samples": 1, "image": "evil.example.com/worker:1"},
        }
    )
    limits = Limits(images=("registry.example.com/",))
    observed = Observed(sampling, WorkerImage("worker:1", "2.60.0"), limits=limits)
    decision = reconcile(observed, datetime(2026, 11, 23, tzinfo=UTC))
    assert not [it for it in decision.actions if isinstance(it, CreateCluster)]
    (written,) = [it.status for it in decision.actions if hasattr(it, "status")]
    assert (written.phase, written.failure.reason) == ("Failed", FailureReason.INVALID_SPEC)
    assert "registry.example.com/" in written.failure.message
    assert "allowed.images" in written.failure.hint
    accepted = next(it for it in written.conditions if it.type == ConditionType.ACCEPTED)
    assert (accepted.status, accepted.reason) == ("False", FailureReason.INVALID_SPEC)
