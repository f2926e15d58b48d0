"""The operator's settings from environment variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_operator.manifests.render import OperatorPods
from ddpm_operator.planning.image_reference import WorkerImage
from ddpm_operator.planning.limits import Limits
from ddpm_operator.settings import Settings, SettingsError

ENVIRONMENT = {
    "OPERATOR_NAMESPACE": "ddpm-ray",
    "OPERATOR_LABELS": '{"app": "operator"}',
    "OPERATOR_KEY_SECRET": "key",
    "WORKER_IMAGE": "worker:1",
    "RAY_VERSION": "2.60.0",
    "WORKER_PULL_POLICY": "Always",
    "WATCH_NAMESPACES": '["research"]',
    "ALLOWED_IMAGES": '["*"]',
    "ALLOWED_SERVICE_ACCOUNTS": "[]",
    "ALLOWED_PRIORITY_CLASSES": '["batch"]',
    "ALLOWED_RUNTIME_CLASSES": '["gvisor"]',
    "ALLOWED_GPU_RESOURCE_NAMES": '["nvidia.com/gpu"]',
    "ALLOWED_POD_LABELS": '["plain words"]',
    "ALLOWED_POD_ANNOTATIONS": '["example.com/"]',
    "ALLOWED_URI_SCHEMES": '["builtin", "s3"]',
    "ALLOWED_CLOUD_IDENTITY": "false",
    "AT_ONCE": "4",
    "AT_ONCE_PER_NAMESPACE": "0",
    "METRICS_HOST": "127.0.0.1",
    "TEMPLATES": "/etc/templates",
}


def test_all_variables_are_read() -> None:
    assert Settings.from_environment(ENVIRONMENT) == Settings(
        pods=OperatorPods("ddpm-ray", {"app": "operator"}),
        key_secret="key",
        worker=WorkerImage("worker:1", "2.60.0", "Always"),
        namespaces=("research",),
        limits=Limits(
            images=("*",),
            default_image="worker:1",
            service_accounts=(),
            priority_classes=("batch",),
            runtime_classes=("gvisor",),
            gpu_resource_names=("nvidia.com/gpu",),
            pod_labels=("plain words",),
            pod_annotations=("example.com/",),
            uri_schemes=("builtin", "s3"),
            key_secret="key",
            cloud_identity=False,
            at_once=4,
            at_once_per_namespace=None,
        ),
        metrics_host="127.0.0.1",
        templates=Path("/etc/templates"),
    )


@pytest.mark.parametrize("name", sorted(ENVIRONMENT.keys() - {"TEMPLATES"}))
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is not set: install the operator with the chart"):
        Settings.from_environment({key: value for key, value in ENVIRONMENT.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPERATOR_LABELS", "app"),
        ("OPERATOR_LABELS", "{}"),
        ("WATCH_NAMESPACES", "research"),
        ("WATCH_NAMESPACES", '"research"'),
        ("ALLOWED_IMAGES", "{}"),
        ("ALLOWED_IMAGES", "[1]"),
        ("ALLOWED_SERVICE_ACCOUNTS", '[""]'),
        ("ALLOWED_CLOUD_IDENTITY", "no"),
        ("AT_ONCE", "many"),
        ("AT_ONCE_PER_NAMESPACE", "-1"),
    ],
)
def test_an_invalid_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment(ENVIRONMENT | {name: value})
