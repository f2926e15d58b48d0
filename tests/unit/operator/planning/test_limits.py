"""The administrator's limits: allowed values, and the message and hint for all others."""

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
CHART_DEFAULTS = Limits(pod_labels=tuple(_VALUES["podLabels"]), pod_annotations=tuple(_VALUES["podAnnotations"]))
STRICT = Limits(
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
    ("allowed", "image", "is_allowed"),
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
def test_image_is_allowed_by_reference_repository_or_prefix(
    make_spec: MakeSpec, allowed: str, image: str, is_allowed: bool
) -> None:
    assert (Limits(images=(allowed,)).violation(make_spec(image=image)) is None) is is_allowed


def test_default_image_is_always_allowed(make_spec: MakeSpec) -> None:
    limits = Limits(images=("registry.example.com/",), default_image="ddpm-ray-worker:dev")
    assert limits.violation(make_spec(image="ddpm-ray-worker:dev")) is None
    assert limits.violation(make_spec(image="ddpm-ray-worker:other"))


@pytest.mark.parametrize(
    ("limits", "fields", "message"),
    [
        (Limits(images=()), {"image": "worker:1"}, "spec.image: worker:1 is not allowed"),
        (
            Limits(service_accounts=("sampler",)),
            {"podOverrides": {"serviceAccountName": "admin"}},
            "spec.podOverrides.serviceAccountName: admin is not allowed",
        ),
        (
            Limits(key_secret="ddpm-ray-operator-key"),
            {"credentialsSecretRef": {"name": "ddpm-ray-operator-key"}},
            "spec.credentialsSecretRef: the Secret ddpm-ray-operator-key holds the operator's signing key.",
        ),
        (
            Limits(priority_classes=("batch",)),
            {"podOverrides": {"priorityClassName": "system-node-critical"}},
            "spec.podOverrides.priorityClassName: system-node-critical is not allowed",
        ),
        (
            Limits(runtime_classes=("gvisor",)),
            {"podOverrides": {"runtimeClassName": "host"}},
            "spec.podOverrides.runtimeClassName: host is not allowed",
        ),
        (
            Limits(gpu_resource_names=("nvidia.com/gpu",)),
            {"resources": {"gpus": 1, "gpuResourceName": "devices.kubevirt.io/kvm"}},
            "spec.resources.gpuResourceName: devices.kubevirt.io/kvm is not allowed",
        ),
        (
            Limits(pod_labels=("plain words", "example.com/")),
            {"podOverrides": {"labels": {"team": "vision", "azure.workload.identity/use": "true"}}},
            "spec.podOverrides.labels: azure.workload.identity/use is not allowed",
        ),
        (
            Limits(pod_annotations=("plain words", "example.com/")),
            {"podOverrides": {"annotations": {"example.com/note": "x", "k8s.ovn.org/pod-networks": "{}"}}},
            "spec.podOverrides.annotations: k8s.ovn.org/pod-networks is not allowed",
        ),
        (
            Limits(uri_schemes=("builtin",)),
            {"model": {"uri": "https://host/m.pt"}},
            "spec.model.uri: https:// is not allowed",
        ),
        (
            Limits(uri_schemes=("builtin", "pvc")),
            {"output": {"uri": "s3://bucket/digits"}},
            "spec.output.uri: s3:// is not allowed",
        ),
    ],
)
def test_message_names_the_field_and_the_value(
    make_spec: MakeSpec, limits: Limits, fields: dict[str, object], message: str
) -> None:
    spec = make_spec(**fields)
    violation = limits.violation(spec)
    assert violation
    assert violation.message.startswith(message)
    assert "allowed" in violation.hint or "under another one" in violation.hint
    assert UNLIMITED.violation(spec) is None


def test_minimal_spec_is_allowed_under_strict_limits() -> None:
    spec = Spec.from_document({"model": {"uri": "builtin://mnist"}, "samples": 1})
    assert STRICT.violation(spec) is None


def test_reserved_scheme_is_never_allowed(make_spec: MakeSpec) -> None:
    violation = UNLIMITED.violation(make_spec(model={"uri": "gs://models/unet.safetensors"}))
    assert violation
    assert violation.message == "spec.model.uri: gs:// is reserved for future use and not supported yet."
    assert "s3://, https://, hf:// or a claim" in violation.hint


def test_listed_names_are_allowed(make_spec: MakeSpec) -> None:
    limits = replace(
        STRICT,
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
    assert limits.violation(spec) is None


@pytest.mark.parametrize(
    ("allowed", "key", "is_allowed"),
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
def test_key_is_allowed_by_name_domain_or_plain_words(
    make_spec: MakeSpec, allowed: str, key: str, is_allowed: bool
) -> None:
    assert (
        Limits(pod_labels=(allowed,)).violation(make_spec(podOverrides={"labels": {key: "a"}})) is None
    ) is is_allowed
    spec = make_spec(podOverrides={"annotations": {key: "a"}})
    assert (Limits(pod_annotations=(allowed,)).violation(spec) is None) is is_allowed


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
def test_chart_defaults_reject_keys_that_controllers_act_on(make_spec: MakeSpec, key: str) -> None:
    assert (
        CHART_DEFAULTS.violation(make_spec(podOverrides={"labels": {"team": "a"}, "annotations": {"note": "a"}}))
        is None
    )
    for field, value in (("labels", "podLabels"), ("annotations", "podAnnotations")):
        violation = CHART_DEFAULTS.violation(make_spec(podOverrides={field: {key: "a"}}))
        assert violation
        assert key in violation.message
        assert f"allowed.{value}" in violation.hint


def test_gpu_resource_name_is_checked_only_with_gpus(make_spec: MakeSpec) -> None:
    assert STRICT.violation(make_spec(resources={"gpuResourceName": "nvidia.com/gpu"})) is None


def test_sampling_outside_the_limits_fails_without_a_cluster() -> None:
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
    assert not [action for action in decision.actions if isinstance(action, CreateCluster)]
    (status,) = [action.status for action in decision.actions if hasattr(action, "status")]
    assert (status.phase, status.failure.reason) == ("Failed", FailureReason.INVALID_SPEC)
    assert "registry.example.com/" in status.failure.message
    assert "allowed.images" in status.failure.hint
    accepted = next(condition for condition in status.conditions if condition.type == ConditionType.ACCEPTED)
    assert (accepted.status, accepted.reason) == ("False", FailureReason.INVALID_SPEC)
